-- The registry: workers.

-- Places in a worker's record. Claims: {{nonce, epoch, previous node, asked_ms, attempt}...}
local NODE, EPOCH, CLAIMS, PRINCIPAL, INSTANCE, LABELS, CAPACITY, LEAVING, AWAY, CURRENT, PREVIOUS, RETIRED, GRANTED,
  SAID_OF_ROOMS = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14

-- What a record looks like; one that does not is damaged.
local SHAPE = {'string', 'number', 'table', 'string', 'string', 'string', 'number', 'number', 'number', 'string', 'string', 'table'}

local function read_worker(packed)
  local read, record, more = pcall(cmsgpack.unpack, packed)
  if not read or type(record) ~= 'table' or more ~= nil then
    return nil
  end
  for i, kind in ipairs(SHAPE) do
    if type(record[i]) ~= kind then
      return nil
    end
  end
  for _, claim in ipairs(record[CLAIMS]) do
    if type(claim) ~= 'table' or type(claim[1]) ~= 'string' or type(claim[2]) ~= 'number' or type(claim[3]) ~= 'string' then
      return nil
    end
  end
  return record
end

-- Returns the record of a worker, or nil; the second is true when there is one that cannot be read.
local function worker(name)
  local packed = redis.call('HGET', WORKERS, name)
  if not packed then
    return nil
  end
  local record = read_worker(packed)
  return record, not record
end

local function put_worker(name, record)
  redis.call('HSET', WORKERS, name, cmsgpack.pack(record))
end

-- The sessions paired with a worker, by id.
local function sessions_of(name)
  local found = redis.call('ZRANGEBYLEX', PAIRED, '[' .. name .. '\0', '(' .. name .. '\1')
  for i, each in ipairs(found) do
    found[i] = string.sub(each, #name + 2)
  end
  return found
end

local function count_of(name)
  return redis.call('ZLEXCOUNT', PAIRED, '[' .. name .. '\0', '(' .. name .. '\1')
end

-- The labels that the core server has granted, as JSON; a record of an earlier release has none.
local function granted_of(record)
  return type(record[GRANTED]) == 'string' and record[GRANTED] or '{}'
end

local function claimed(name, claim, record)
  local rooms = type(record[SAID_OF_ROOMS]) == 'string' and record[SAID_OF_ROOMS] or '' -- a record of an earlier release has none
  return {'claimed', claim[2], sessions_of(name), claim[3], granted_of(record), rooms}
end

local function with_granted(labels, record)
  local read, granted = pcall(cjson.decode, granted_of(record))
  if not read or type(granted) ~= 'table' or next(granted) == nil then
    return labels
  end
  local all = cjson.decode(labels)
  for name, value in pairs(granted) do
    all[name] = value
  end
  return cjson.encode(all)
end

local function find_claim(record, nonce)
  for _, claim in ipairs(record[CLAIMS]) do
    if claim[1] == nonce then
      return claim
    end
  end
  return nil
end

function operation.register(name, nonce, principal, instance, labels, capacity, token, now_ms, events_max, fields, granted, rooms)
  local record, damaged = worker(name)
  local claim
  if record or damaged then
    claim = record and find_claim(record, nonce)
    if not claim then
      return {'refused', 'exists'}
    end
  else
    claim = {nonce, 1, '', tonumber(now_ms)}
    record = {caller, 1, {claim}, principal, instance, labels, tonumber(capacity), 0, 0, token, '', {}, granted, rooms}
    record[LABELS] = with_granted(labels, record)
    put_worker(name, record)
    tell_queue(name, 'worker.registered', fields, events_max, now_ms)
  end
  return claimed(name, claim, record)
end

function operation.claim(name, nonce, principal, presented, issued, labels, capacity, now_ms, attempt)
  local record, damaged = worker(name)
  if not record then
    return {'refused', damaged and 'unreadable' or 'unknown'}
  end
  local claim = find_claim(record, nonce)
  if claim then
    return claimed(name, claim, record)
  end
  if record[PRINCIPAL] ~= principal then
    return {'refused', 'principal'} -- before the token, as in session.lua
  end
  local last = record[CLAIMS][#record[CLAIMS]] or {}
  local last_ms, last_attempt = last[4], last[5]
  if is_late(last_ms, now_ms) then
    return {'refused', 'late'}
  end
  local kept = {record[CURRENT], record[PREVIOUS], record[RETIRED]}
  local refused, slots = present(kept, presented, issued, is_tied(last_ms, last_attempt, now_ms, attempt))
  if refused then
    if slots then
      record[CURRENT], record[PREVIOUS], record[RETIRED] = unpack(slots)
      put_worker(name, record)
    end
    return {'refused', refused}
  end
  if kept[2] == presented and is_outdone(last_ms, last_attempt, now_ms, attempt) then
    return {'refused', 'late'}
  end
  local before = record[NODE]
  claim = {nonce, record[EPOCH] + 1, before, tonumber(now_ms), tonumber(attempt)}
  remember(record[CLAIMS], claim, CLAIMS_REMEMBERED)
  record[NODE], record[EPOCH] = caller, claim[2]
  record[CURRENT], record[PREVIOUS], record[RETIRED] = unpack(slots)
  record[LABELS], record[CAPACITY], record[LEAVING], record[AWAY] = with_granted(labels, record), tonumber(capacity), 0, 0
  put_worker(name, record)
  wake_node(before, 'w' .. name)
  return claimed(name, claim, record)
end

function operation.claim_named(name, nonce, principal, instance, labels, capacity, create, now_ms, events_max, fields, granted, rooms)
  local record, damaged = worker(name)
  if damaged or (not record and create == '0') then
    return {'refused', damaged and 'unreadable' or 'unknown'}
  end
  local claim = record and find_claim(record, nonce)
  if claim then
    return claimed(name, claim, record)
  end
  if not record then
    claim = {nonce, 1, '', tonumber(now_ms)}
    record = {caller, 1, {claim}, principal, instance, labels, tonumber(capacity), 0, 0, '', '', {}, granted, rooms}
    record[LABELS] = with_granted(labels, record)
    put_worker(name, record)
    tell_queue(name, 'worker.registered', fields, events_max, now_ms)
    return claimed(name, claim, record)
  end
  if record[PRINCIPAL] ~= principal then
    return {'refused', 'principal'}
  end
  local last = record[CLAIMS][#record[CLAIMS]] or {}
  if is_late(last[4], now_ms) then
    return {'refused', 'late'}
  end
  local before = record[NODE]
  claim = {nonce, record[EPOCH] + 1, before, tonumber(now_ms), 0}
  remember(record[CLAIMS], claim, CLAIMS_REMEMBERED)
  record[NODE], record[EPOCH] = caller, claim[2]
  record[LABELS], record[CAPACITY], record[LEAVING], record[AWAY] = with_granted(labels, record), tonumber(capacity), 0, 0
  put_worker(name, record)
  wake_node(before, 'w' .. name)
  return claimed(name, claim, record)
end

function operation.update(name, epoch, capacity, leaving)
  local record, damaged = worker(name)
  if not record then
    return damaged and {'behind', 0} or {'no_worker'}
  end
  if record[EPOCH] ~= tonumber(epoch) then
    return {'fenced', record[EPOCH]}
  end
  record[CAPACITY], record[LEAVING] = tonumber(capacity), tonumber(leaving)
  put_worker(name, record)
  return {'done'}
end

function operation.confirm(name, epoch)
  local record = worker(name)
  if record and record[EPOCH] == tonumber(epoch) and record[PREVIOUS] ~= '' then
    retire(record[RETIRED], record[PREVIOUS])
    record[PREVIOUS] = ''
    put_worker(name, record)
  end
  return {'done'}
end

function operation.detach(name, epoch, now_ms)
  local record = worker(name)
  if record and record[EPOCH] == tonumber(epoch) and record[NODE] ~= '' then
    record[NODE], record[AWAY] = '', tonumber(now_ms)
    put_worker(name, record)
  end
  return {'done'}
end

function operation.remove(name, epoch, again, events_max, now_ms, fields)
  local record, damaged = worker(name)
  if not damaged and (not record or (epoch ~= '0' and record[EPOCH] ~= tonumber(epoch))) then
    return {}
  end
  local sessions = sessions_of(name)
  for _, session in ipairs(sessions) do
    release(session, name, again)
  end
  redis.call('HDEL', WORKERS, name)
  tell_queue(name, 'worker.lost', fields, events_max, now_ms, true)
  leave_queue(name)
  wake_node(record and record[NODE] or '', 'w' .. name)
  return sessions
end

-- ARGV 16...: session, order_ms and want, for each pairing
function operation.reseed(name, epoch, principal, instance, labels, capacity, current, previous, now_ms, asked_ms, attempt, granted, rooms)
  local record = worker(name)
  if not record or tonumber(epoch) > record[EPOCH] then
    local retired = record and record[RETIRED] or {}
    -- How its last claim was asked for; the nonce of that is lost.
    local claims = asked_ms ~= '0' and {{'', tonumber(epoch), '', tonumber(asked_ms), tonumber(attempt)}} or {}
    put_worker(name, {caller, tonumber(epoch), claims, principal, instance, labels, tonumber(capacity), 0, 0, current, previous,
      retired, granted, rooms})
  end
  for i = 16, #ARGV, 3 do
    local session = ARGV[i]
    if not redis.call('HGET', PAIRS, session) then
      redis.call('HSET', LINE, session, ARGV[i + 1] .. ' ' .. ARGV[i + 2])
      pair(session, name)
    end
    -- Due at once: the node that sweeps overdue sessions finds out whether this one still lives. Otherwise one whose client's
    -- node died together with the store would be in no index, and so would never end.
    renew(session, now_ms)
  end
  return {'done'}
end

-- → for each worker: id, node, epoch, labels, capacity, how many it has, leaving, away_since_ms, instance, principal; the id alone of one
-- whose record is damaged
function operation.list_workers()
  local found = {}
  local all = redis.call('HGETALL', WORKERS)
  for i = 1, #all, 2 do
    local record = read_worker(all[i + 1])
    found[#found + 1] = record and {all[i], record[NODE], record[EPOCH], record[LABELS], record[CAPACITY], count_of(all[i]),
      record[LEAVING], record[AWAY], record[INSTANCE], record[PRINCIPAL]} or {all[i]}
  end
  return found
end

function operation.worker_sessions(name)
  return sessions_of(name)
end

function operation.enqueue(session, want, order_ms, alive_until_ms)
  renew(session, alive_until_ms)
  local name = redis.call('HGET', PAIRS, session)
  if name then
    if worker(name) then
      return name
    end
    unpair(session, name)
  end
  redis.call('HSET', LINE, session, order_ms .. ' ' .. want)
  redis.call('ZADD', WAITING, order_ms, session)
  stand(session, order_ms, want)
  return ''
end

-- ARGV 3...: session and worker, for each pair
function operation.reserve()
  local held, told = {}, {}
  for i = 3, #ARGV, 2 do
    local session, name = ARGV[i], ARGV[i + 1]
    local record = worker(name)
    local holds = 0
    if redis.call('HGET', PAIRS, session) == name then
      holds = 1
    elseif redis.call('ZSCORE', WAITING, session) and record and record[NODE] ~= '' and record[LEAVING] == 0
        and count_of(name) < record[CAPACITY] then
      pair(session, name)
      holds = 1
      if not told[name] then
        told[name] = true
        wake_node(record[NODE], 'w' .. name)
      end
    end
    held[#held + 1] = holds
  end
  return held
end
