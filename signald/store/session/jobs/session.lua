-- What the steps on the session itself do to its jobs. It follows jobs.lua.

-- The session is given to a worker: attempts that were handed out are over.
local function move_jobs(now_ms)
  if not open_own(now_ms) then
    return
  end
  for _, job in ipairs(unfinished()) do
    if job[JOB.handed] == 1 then
      job[JOB.attempt], job[JOB.handed] = job[JOB.attempt] + 1, 0
      put_job(job, true)
    end
  end
  save_jobs()
end

-- The worker of the session is lost.
local function lose_worker(failures_max, now_ms)
  if not open_own(now_ms) then
    return
  end
  for _, job in ipairs(unfinished()) do
    if job[JOB.handed] == 1 then
      job[JOB.failures] = job[JOB.failures] + 1
      if job[JOB.failures] >= tonumber(failures_max) then
        end_job(job, 'failed', WORKER_LOST)
      else
        put_job(job, false)
      end
    end
  end
  save_jobs()
end

-- A node knows `Head.jobs` to have been `known`: numbers that may have been given by then are not given again.
local function learn_jobs(known)
  local kept = get('jobs')[1]
  local number = tonumber(kept or 0) or 0
  if kept or known > 0 then
    set('jobs', math.max(number, known))
  end
  local all = known > number and read_packed('h', JOBS_COUNT)
  if all and all[JOBS.last] < known then
    all[JOBS.last] = known
    redis.call('HSET', jobs_key, 'h', cmsgpack.pack(all))
  end
end

-- The session ends. `now_ms` '0': at the time of the last operation on its jobs.
local function finish_jobs(now_ms)
  if open_own(now_ms) then
    here.now_ms = jobs[JOBS.seen_ms]
    finish_open(jobs[JOBS.keep_ms])
    save_jobs()
  end
end
