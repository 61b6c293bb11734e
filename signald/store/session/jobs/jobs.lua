-- The jobs of a session during one step: the twin of keeping.py. It follows head.lua and events/queue.lua.
--
-- KEYS[5]  a hash: `h` the record of them all (JOBS), `j<n>` a job (JOB), `i<n>` its input, `k<digest of its key>` and `e<place>` its
--          number. Records are lists, packed; a later release may add to their ends.
-- KEYS[6]  a hash: `<n>.<number>` a piece: its seq, a blank, its body with the seal
-- Both outlive the session. What cannot be read counts as absent.
local jobs_key, pieces_key = KEYS[5], KEYS[6]

-- The jobs that are open: `record` whether the session is there, `told` whether it was before this step; see `SessionJobs`.
local jobs
local here

local function read_packed(field, count)
  local packed = redis.pcall('HGET', jobs_key, field)
  if type(packed) ~= 'string' then
    return nil
  end
  local read, value = pcall(cmsgpack.unpack, packed)
  return read and type(value) == 'table' and #value >= count and value or nil
end

local function read_job(n)
  return read_packed('j' .. n, JOB_COUNT)
end

local function number_at(field)
  return tonumber(redis.call('HGET', jobs_key, field) or nil) or 0
end

local function is_over(job)
  local state = job[JOB.state]
  return state ~= 'queued' and state ~= 'running'
end

local function is_gone(job, now_ms)
  return is_over(job) and job[JOB.ended_ms] + job[JOB.keep_ms] <= now_ms
end

-- When time ends a job; 0: never.
local function due_of(job)
  local deadline, cancel = job[JOB.deadline_ms], job[JOB.cancel_ms]
  if is_over(job) then
    return 0
  elseif deadline == 0 or cancel == 0 then
    return deadline + cancel
  end
  return math.min(deadline, cancel)
end

local function put_job(job, is_shown)
  here.dirty = true
  if is_shown and here.record then
    here.number = here.number + 1
    here.shown = true
    job[JOB.changed], job[JOB.behind] = here.number, here.behind or tonumber(get('down_last')[1])
  end
  redis.call('HSET', jobs_key, 'j' .. job[JOB.n], cmsgpack.pack(job))
end

local function drop_pieces(n, first, last)
  for i = first, last do
    redis.call('HDEL', pieces_key, n .. '.' .. i)
  end
end

local function drop_job(n)
  local job = read_job(n)
  if job then
    jobs[JOBS.kept_bytes] = jobs[JOBS.kept_bytes] - job[JOB.size]
    redis.call('HDEL', jobs_key, 'k' .. job[JOB.key], 'e' .. job[JOB.place])
    drop_pieces(n, job[JOB.first], job[JOB.pieces])
  end
  redis.call('HDEL', jobs_key, 'j' .. n, 'i' .. n)
  here.dirty = true
end

local function drop_first()
  local n = number_at('e' .. jobs[JOBS.first_place])
  if n > 0 then
    drop_job(n)
  end
  jobs[JOBS.first_place] = jobs[JOBS.first_place] + 1
  if jobs[JOBS.first_place] == jobs[JOBS.next_place] then
    jobs[JOBS.kept_bytes] = 0
  end
  here.dirty = true
end

local function close_job(n, input_bytes)
  local open = {}
  for _, other in ipairs(jobs[JOBS.open]) do
    if other ~= n then
      open[#open + 1] = other
    end
  end
  jobs[JOBS.open] = open
  jobs[JOBS.open_bytes] = #open > 0 and jobs[JOBS.open_bytes] - input_bytes or 0
  here.dirty = true
end

-- Ends the stream of a job, if it is open: streams.lua has it, which follows.
local close_stream_of_job

local function end_job(job, state, failure)
  local n, place = job[JOB.n], jobs[JOBS.next_place]
  job[JOB.state], job[JOB.place] = state, place
  job[JOB.ended_ms] = math.max(here.now_ms, job[JOB.created_ms], job[JOB.started_ms])
  job[JOB.error], job[JOB.cancel_ms] = failure or '', 0
  put_job(job, true)
  redis.call('HSET', jobs_key, 'e' .. place, n)
  redis.call('HDEL', jobs_key, 'i' .. n)
  if here.record then
    close_stream_of_job(n, here.now_ms)
  end
  if here.told then
    tell_job(job, here.now_ms)
  end
  jobs[JOBS.next_place] = place + 1
  jobs[JOBS.kept_bytes] = jobs[JOBS.kept_bytes] + job[JOB.size]
  close_job(n, job[JOB.input_bytes])
  while jobs[JOBS.next_place] - jobs[JOBS.first_place] > KEPT_MAX or jobs[JOBS.kept_bytes] > KEPT_BYTES_MAX do
    drop_first()
  end
end

-- Lets the time pass for a job.
local function fresh(job)
  local due = due_of(job)
  if due > 0 and due <= here.now_ms then
    local cancelled = due == job[JOB.cancel_ms] and due ~= job[JOB.deadline_ms]
    end_job(job, cancelled and 'cancelled' or 'expired')
  end
  return job
end

-- The unfinished jobs, in the order of their creation. One that cannot be read is let go.
local function unfinished()
  local found = {}
  for _, n in ipairs(jobs[JOBS.open]) do
    local job = read_job(n)
    if job then
      found[#found + 1] = job
    else
      close_job(n, 0)
    end
  end
  return found
end

local function pass_time()
  for _, job in ipairs(unfinished()) do
    fresh(job)
  end
end

local function next_due()
  local due = 0
  for _, job in ipairs(unfinished()) do
    local one = due_of(job)
    if one > 0 and (due == 0 or one < due) then
      due = one
    end
  end
  return due
end

local function drop_due()
  for _ = 1, DUE_MAX do
    if jobs[JOBS.first_place] == jobs[JOBS.next_place] then
      return
    end
    local n = number_at('e' .. jobs[JOBS.first_place])
    local job = n > 0 and read_job(n)
    if job and not is_gone(job, here.now_ms) then
      return
    end
    drop_first()
  end
end

local function save_jobs()
  if not here.dirty then
    return
  end
  redis.call('HSET', jobs_key, 'h', cmsgpack.pack(jobs))
  if jobs[JOBS.over] == 1 then
    local left = string.format('%.0f', jobs[JOBS.until_ms] - here.now_ms + OVER_MS)
    redis.call('PEXPIRE', jobs_key, left)
    redis.call('PEXPIRE', pieces_key, left)
  elseif here.renew then
    expire_with_head(jobs_key)
    expire_with_head(pieces_key)
  end
  if here.shown then
    set('jobs', here.number)
  end
end

local function finish_open(keep_ms)
  here.record = false
  jobs[JOBS.over], jobs[JOBS.until_ms] = 1, here.now_ms + keep_ms
  for _, job in ipairs(unfinished()) do
    if not is_over(fresh(job)) then
      end_job(job, 'cancelled')
    end
  end
  here.dirty = true
end

local function use_jobs(kept, record, number, now_ms)
  jobs = kept
  here = {record = record, told = record, number = number, now_ms = now_ms, renew = jobs[JOBS.keep_ms] == 0 or (record and jobs[JOBS.over] == 1)}
  jobs[JOBS.seen_ms] = math.max(jobs[JOBS.seen_ms], now_ms)
end

-- Access (core/callers.py).
local function allows(kind, text, principal, worker)
  if kind == 'o' then
    return principal == text
  elseif kind == 't' then
    return string.sub(principal, 1, #text) == text
  elseif kind == 'w' then
    return worker ~= '' and worker == text
  end
  return kind == 'a'
end

-- Opens the jobs for one step; tells whether the session is there, or kept after its end, and access is allowed.
local function open_jobs(now_ms, kind, text)
  local v = get('principal', 'worker', 'jobs')
  if not v[1] and exists() then
    return false -- damaged
  end
  now_ms = tonumber(now_ms)
  local kept = read_packed('h', JOBS_COUNT)
  if v[1] then
    local number = tonumber(v[3] or 0)
    if not allows(kind, text, v[1], v[2]) then
      return false
    end
    if not kept then
      if number > 0 then
        redis.call('DEL', jobs_key, pieces_key)
      end
      kept = {v[1], number, {}, 0, 1, 1, 0, 0, 0, 0, 0}
    end
    use_jobs(kept, true, number, now_ms)
    jobs[JOBS.over], jobs[JOBS.until_ms] = 0, 0
    return true
  end
  if not kept or not allows(kind, text, kept[JOBS.principal], '') then
    return false
  end
  if kept[JOBS.over] == 1 and kept[JOBS.until_ms] <= now_ms then
    return false
  end
  use_jobs(kept, false, 0, now_ms)
  if jobs[JOBS.over] == 0 then
    finish_open(jobs[JOBS.keep_ms]) -- a release without jobs has ended the session
    save_jobs()
  end
  return true
end

-- For a step on the session itself; false when it has no jobs.
local function open_own(now_ms)
  local number = tonumber(get('jobs')[1] or 0) or 0
  local kept = number > 0 and read_packed('h', JOBS_COUNT)
  if not kept then
    return false
  end
  use_jobs(kept, true, number, tonumber(now_ms))
  return true
end
