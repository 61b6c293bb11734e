-- What of a session is sealed, and its exchange for the same under another key: see redis_reseal.py. It follows jobs.lua.
--
-- KEYS are those of session.lua, and behind them KEYS[9], the trail.
-- Values are exchanged where they still are what the caller has read, so nothing that is written meanwhile is lost.
local LIST_OF = {history = KEYS[4], trail = KEYS[9]}
local LOG_OF = {up = KEYS[2], down = KEYS[3]}
local HASH_OF = {head = KEYS[1], inputs = KEYS[5], pieces = KEYS[6]}

local function fields_of(hash, from, wanted)
  local cursor, found = unpack(redis.call('HSCAN', hash, from, 'MATCH', wanted, 'COUNT', RESEAL_PAGE))
  local list = {cursor == '0' and '' or cursor}
  for place = 1, #found, 2 do
    local name = ''
    if wanted == 'i*' then
      local job = read_job(string.sub(found[place], 2))
      name = job and job[JOB.key] or ''
    end
    list[#list + 1], list[#list + 2], list[#list + 3] = found[place], found[place + 1], name
  end
  return list
end

local function progress_from(from)
  local cursor, found = unpack(redis.call('HSCAN', jobs_key, from, 'MATCH', 'j*', 'COUNT', RESEAL_PAGE))
  local list = {cursor == '0' and '' or cursor}
  for place = 1, #found, 2 do
    local job = read_job(string.sub(found[place], 2))
    if job and job[JOB.progress] ~= '' then
      list[#list + 1], list[#list + 2], list[#list + 3] = found[place], job[JOB.progress], ''
    end
  end
  return list
end

-- → {where the next ones begin, '' for nowhere; where, value, what else its place is called by, ...}
function operation.sealed_values(part, from)
  if part == 'head' then
    local fields = {'meta', 'settings', 'rooms', 'handed_on'}
    local list = {''}
    for place, kept in ipairs(get(unpack(fields))) do
      if kept and kept ~= '' then
        list[#list + 1], list[#list + 2], list[#list + 3] = fields[place], kept, ''
      end
    end
    return list
  elseif LOG_OF[part] then
    local found = redis.call('XRANGE', LOG_OF[part], from, '+', 'COUNT', RESEAL_PAGE)
    local list = {#found == RESEAL_PAGE and '(' .. found[#found][1] or ''}
    for _, entry in ipairs(found) do
      list[#list + 1], list[#list + 2], list[#list + 3] = entry[1], entry[2][2], ''
    end
    return list
  elseif LIST_OF[part] then
    local first = tonumber(from)
    local found = redis.call('LRANGE', LIST_OF[part], first, first + RESEAL_PAGE - 1)
    local list = {#found == RESEAL_PAGE and string.format('%.0f', first + RESEAL_PAGE) or ''}
    for place, kept in ipairs(found) do
      list[#list + 1], list[#list + 2], list[#list + 3] = string.format('%.0f', first + place - 1), kept, ''
    end
    return list
  elseif part == 'progress' then
    return progress_from(from)
  end
  return fields_of(HASH_OF[part], from, part == 'inputs' and 'i*' or '*')
end

-- An entry of a log cannot be changed where it is. So the log is made anew, with the ids, kinds and lifetime that it had.
local function exchange_log(log, new)
  local kept, count = redis.call('XRANGE', log, '-', '+'), 0
  for _, entry in ipairs(kept) do
    local pair = new[entry[1]]
    if pair and pair[1] == entry[2][2] then
      entry[2][2], count = pair[2], count + 1
    end
  end
  if count == 0 then
    return 0
  end
  local left = redis.call('PTTL', log)
  redis.call('DEL', log)
  for _, entry in ipairs(kept) do
    redis.call('XADD', log, entry[1], unpack(entry[2]))
  end
  if left > 0 then
    redis.call('PEXPIRE', log, left)
  end
  return count
end

local function exchange_in_list(list, place, old, new)
  -- A list that has lost its first items since it was read has this one nearer to its beginning.
  for at = tonumber(place), 0, -1 do
    if redis.call('LRANGE', list, at, at)[1] == old then
      redis.call('LSET', list, at, new)
      return 1
    end
  end
  return 0
end

local function exchange_progress(field, old, new)
  local job = read_job(string.sub(field, 2))
  if not job or job[JOB.progress] ~= old then
    return 0
  end
  job[JOB.progress] = new
  redis.call('HSET', jobs_key, field, cmsgpack.pack(job))
  return 1
end

-- ARGV  3 part  4... where, the value that was read, the value to be kept
-- → how many were exchanged
function operation.reseal_values(part)
  if LOG_OF[part] then
    local new = {}
    for at = 4, #ARGV, 3 do
      new[ARGV[at]] = {ARGV[at + 1], ARGV[at + 2]}
    end
    return exchange_log(LOG_OF[part], new)
  end
  local count = 0
  for at = 4, #ARGV, 3 do
    local where, old, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    if LIST_OF[part] then
      count = count + exchange_in_list(LIST_OF[part], where, old, new)
    elseif part == 'progress' then
      count = count + exchange_progress(where, old, new)
    elseif redis.call('HGET', HASH_OF[part], where) == old then
      redis.call('HSET', HASH_OF[part], where, new)
      count = count + 1
    end
  end
  return count
end

return operation[ARGV[1]](unpack(ARGV, 3, 4))
