-- The operations on jobs: the twin of rules.py. It follows jobs.lua. KEYS are those of session.lua.
--
-- ARGV  1 operation  2 the caller's node  3... the arguments of the function of `operation` that has its name
-- An answer begins with its kind, which replies.py makes a result of.

local function save_and_wake()
  save_jobs()
  if here.shown then
    local v = get('client_node', 'worker_node')
    wake(v[1], v[2])
  end
end

-- The answer for a caller that writes for the worker without holding it, or nil.
local function not_holder(epoch)
  local v = get('worker_epoch', 'worker_node')
  local asked, held = tonumber(epoch), tonumber(v[1])
  if asked > held then
    return {'behind', held}
  elseif asked < held or v[2] ~= caller then
    return {'fenced', held}
  end
  return nil
end

local function pieces(n, first, last)
  local found = {}
  for i = first, last do
    found[#found + 1] = redis.call('HGET', pieces_key, n .. '.' .. i) or nil
  end
  return found
end

-- The pieces that the result of a job is made of.
local function result_of(job)
  if job[JOB.state] ~= 'succeeded' or job[JOB.pieces] == 0 then
    return {}
  end
  return pieces(job[JOB.n], job[JOB.folded] == 1 and job[JOB.first] or job[JOB.pieces], job[JOB.pieces])
end

-- The job that was made with `key`, if it is kept.
local function job_of_key(key)
  local n = number_at('k' .. key)
  local job = n > 0 and read_job(n)
  if not job then
    return nil
  end
  fresh(job)
  if is_gone(job, here.now_ms) then
    drop_job(n)
    return nil
  end
  return job
end

local function is_full(in_flight_max, size)
  return #jobs[JOBS.open] >= tonumber(in_flight_max) or jobs[JOBS.open_bytes] + size > INPUT_BYTES_MAX
end

local function make(nonce, key, payload, kind, data, content_type, trace, deadline_ms, result_bytes_max, keep_ms, size)
  local n = jobs[JOBS.last] + 1
  jobs[JOBS.last] = n
  jobs[JOBS.open][#jobs[JOBS.open] + 1] = n
  jobs[JOBS.open_bytes] = jobs[JOBS.open_bytes] + size
  jobs[JOBS.keep_ms] = tonumber(keep_ms)
  local job = {n, kind, content_type, trace, nonce, key, payload, here.now_ms, tonumber(deadline_ms), tonumber(keep_ms),
    tonumber(result_bytes_max), size, 'queued', 0, 0, 0, '', '', 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0}
  put_job(job, true)
  redis.call('HSET', jobs_key, 'k' .. key, n, 'i' .. n, data)
  return fresh(job)
end

function operation.create_job(access, text, nonce, key, payload, kind, data, content_type, trace, too_big, deadline_ms,
    in_flight_max, result_bytes_max, keep_ms, now_ms, size)
  if not open_jobs(now_ms, access, text) or not here.record then
    return {'no_session'}
  end
  drop_due()
  size = tonumber(size)
  local answer
  local known = job_of_key(key)
  if known then
    answer = known[JOB.payload] == payload and {'made', known[JOB.nonce] ~= nonce and 1 or 0, known} or {'taken'}
  elseif too_big == '1' then
    answer = {'too_big'}
  else
    if is_full(in_flight_max, size) then
      pass_time()
    end
    if is_full(in_flight_max, size) then
      answer = {'full'}
    else
      answer = {'made', 0,
        make(nonce, key, payload, kind, data, content_type, trace, deadline_ms, result_bytes_max, keep_ms, size)}
    end
  end
  save_and_wake()
  return answer
end

-- Returns a job, or the answer to a caller that asks for one that is not kept.
local function find(n, access, text, now_ms)
  if not open_jobs(now_ms, access, text) then
    return nil, {'no_session'}
  end
  n = tonumber(n)
  local job = read_job(n)
  if not job then
    return nil, {n > 0 and n <= jobs[JOBS.last] and 'gone' or 'no_job'}
  elseif is_gone(job, here.now_ms) then
    return nil, {'gone'}
  end
  return fresh(job)
end

function operation.read_job(n, access, text, now_ms)
  local job, answer = find(n, access, text, now_ms)
  if not job then
    return answer
  end
  save_and_wake()
  return {'job', job, result_of(job)}
end

function operation.cancel_job(n, access, text, timeout_ms, now_ms)
  local job, answer = find(n, access, text, now_ms)
  if not job then
    return answer
  end
  if not is_over(job) then
    if job[JOB.handed] == 0 or not here.record or get('worker')[1] == '' then
      end_job(job, 'cancelled')
    elseif job[JOB.cancel_ms] == 0 then
      job[JOB.cancel_ms] = here.now_ms + tonumber(timeout_ms)
      put_job(job, true)
    end
  end
  save_and_wake()
  return {'job', job, result_of(job)}
end

local function newest(before)
  local numbers = {}
  for _, n in ipairs(jobs[JOBS.open]) do
    numbers[#numbers + 1] = n
  end
  for place = jobs[JOBS.first_place], jobs[JOBS.next_place] - 1 do
    numbers[#numbers + 1] = number_at('e' .. place)
  end
  table.sort(numbers, function(one, other) return one > other end)
  local found = {}
  for _, n in ipairs(numbers) do
    if n > 0 and (before == 0 or n < before) then
      found[#found + 1] = n
    end
  end
  return found
end

function operation.list_jobs(access, text, state, before, limit, now_ms)
  if not open_jobs(now_ms, access, text) then
    return {'no_session'}
  end
  pass_time()
  save_and_wake()
  local found = {}
  for _, n in ipairs(newest(tonumber(before))) do
    local job = read_job(n)
    if job and not is_gone(job, here.now_ms) and (state == '' or state == job[JOB.state]) then
      if #found >= tonumber(limit) then
        return {'jobs', 1, found}
      end
      found[#found + 1] = job
    end
  end
  return {'jobs', 0, found}
end

function operation.list_changed_jobs(since, ended_ms, limit)
  if not exists() then
    return {'no_session'}
  end
  since, ended_ms, limit = tonumber(since), tonumber(ended_ms), tonumber(limit)
  local kept = read_packed('h', JOBS_COUNT)
  local found = {}
  for _, n in ipairs(kept and kept[JOBS.open] or {}) do
    local job = read_job(n)
    if job and job[JOB.changed] > since then
      found[#found + 1] = job
    end
  end
  for place = kept and kept[JOBS.next_place] - 1 or 0, kept and kept[JOBS.first_place] or 1, -1 do
    local n = number_at('e' .. place)
    local job = n > 0 and read_job(n)
    if job then
      if job[JOB.changed] <= since or job[JOB.ended_ms] <= ended_ms or #found > limit then
        break
      end
      found[#found + 1] = job
    end
  end
  table.sort(found, function(one, other) return one[JOB.n] > other[JOB.n] end)
  local more = #found > limit and 1 or 0
  return {'jobs', more, {unpack(found, 1, math.min(#found, limit))}}
end

-- The number of the first piece with a seq above `after`; that behind the last, if none has.
local function number_after(job, after)
  local low, high = job[JOB.first], job[JOB.pieces] + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    local piece = redis.call('HGET', pieces_key, job[JOB.n] .. '.' .. middle) or ''
    if (tonumber(string.match(piece, '^(%d+) ') or 0)) > after then
      high = middle
    else
      low = middle + 1
    end
  end
  return low
end

function operation.read_pieces(n, access, text, after, limit, now_ms)
  local v = get('principal', 'worker')
  local kept = read_packed('h', JOBS_COUNT)
  n, now_ms = tonumber(n), tonumber(now_ms)
  if not v[1] and (exists() or not kept or (kept[JOBS.over] == 1 and kept[JOBS.until_ms] <= now_ms)) then
    return {'no_session'}
  end
  if not allows(access, text, v[1] or kept[JOBS.principal], v[1] and v[2] or '') then
    return {'no_session'}
  end
  local job = read_job(n)
  if not job then
    return {kept and n > 0 and n <= kept[JOBS.last] and 'gone' or 'no_job'}
  elseif is_gone(job, now_ms) then
    return {'gone'}
  end
  local first = number_after(job, tonumber(after))
  return {'job', job, pieces(n, first, math.min(job[JOB.pieces], first + tonumber(limit) - 1))}
end

-- ARGV 8...: the kinds, then the numbers of the jobs that the worker has
function operation.take_jobs(epoch, limit, now_ms, kinds_count, known_count)
  if not exists() then
    return {'no_session'}
  elseif not open_jobs(now_ms, 'a', '') then
    return {'behind', 0}
  end
  local refused = not_holder(epoch)
  if refused then
    return refused
  end
  pass_time()
  local kinds, known, cancels, given, more = {}, {}, {}, {}, 0
  for i = 8, 7 + kinds_count do
    kinds[ARGV[i]] = true
  end
  for i = 8 + kinds_count, 7 + kinds_count + known_count do
    local n = tonumber(ARGV[i])
    local job = read_job(n)
    known[n] = true
    if job and (is_over(job) or job[JOB.cancel_ms] > 0) then
      cancels[#cancels + 1] = job
    end
  end
  for _, job in ipairs(unfinished()) do
    if known[job[JOB.n]] then
      -- it has it
    elseif job[JOB.cancel_ms] > 0 then
      end_job(job, 'cancelled')
    elseif not kinds['*'] and not kinds[job[JOB.kind]] then
      end_job(job, 'failed', KIND_NOT_TAKEN)
    elseif #given >= tonumber(limit) then
      more = 1
      break
    else
      if job[JOB.handed] == 0 then
        job[JOB.state], job[JOB.attempt], job[JOB.handed] = 'running', math.max(1, job[JOB.attempt]), 1
        if job[JOB.started_ms] == 0 then
          job[JOB.started_ms] = math.max(here.now_ms, job[JOB.created_ms])
        end
        put_job(job, true)
      end
      given[#given + 1] = {job, redis.call('HGET', jobs_key, 'i' .. job[JOB.n]) or ''}
    end
  end
  local due = next_due()
  save_and_wake()
  return {'given', given, cancels, more, due, here.number}
end

function operation.job_progress(n, epoch, progress, now_ms)
  if not exists() then
    return {'no_session'}
  elseif not open_jobs(now_ms, 'a', '') then
    return {'done'}
  end
  local refused = not_holder(epoch)
  if refused then
    return refused
  end
  local job = read_job(tonumber(n))
  if job then
    fresh(job)
    if job[JOB.state] == 'running' and job[JOB.progress] ~= progress then
      job[JOB.progress] = progress
      put_job(job, true)
    end
    save_and_wake()
  end
  return {'done'}
end

function operation.sweep_jobs(now_ms)
  if not open_jobs(now_ms, 'a', '') then
    return {'no_session'}
  end
  pass_time()
  drop_due()
  local due = next_due()
  save_and_wake()
  return {'swept', due}
end

return operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 30)))
