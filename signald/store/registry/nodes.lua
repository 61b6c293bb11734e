-- The registry: its keys, its nodes, and what the cluster shares. The operations are called at the end of registry.lua.
--
-- KEYS   nodes: id → state, info   leases: id by lease_until_ms   workers: id → cmsgpack (see `worker`)
--        pairs: session → worker   paired: worker NUL session, for ranges   waiting: session by order_ms
--        line: session → order_ms, want; kept while it waits or is paired   alive: session by alive_until_ms
--        misc   receipts: node → body   receipt_times: node by now_ms
--        lines: node NUL order_ms (16 digits) NUL session, for ranges   spots: session → order_ms, path
--        wanted: node → how many sessions want what is reached over it
--        lines, spots and wanted are the waiting line again, by want (core/wants.py). Earlier releases write waiting and line alone,
--        and those hold.
--        holds: session → holders, each behind a space   held: holder → sessions   holds_due: session by when its count is to be
--        looked at   revoked: principal → number, at_ms, until_ms   revoked_numbers: principal by number
--        revoked_ends: principal by until_ms   agenda: kind name → an item, agenda_order: where it stands (agenda.lua)
--        event_queues: worker or cluster → cmsgpack (queues.lua); agenda_order has under `qq` until when each is kept
--         trails: session by when its trail is forgotten   trail_bytes: session → what its trail counts for, "" → the sum
-- Their order is that of registry/packing.py.
local NODES, LEASES, WORKERS, PAIRS, PAIRED = KEY.nodes, KEY.leases, KEY.workers, KEY.pairs, KEY.paired
local WAITING, LINE, LINES, SPOTS, WANTED = KEY.waiting, KEY.line, KEY.lines, KEY.spots, KEY.wanted
local ALIVE, HOLDS, HELD, HOLDS_DUE, TRAILS, TRAIL_SIZES = KEY.alive, KEY.holds, KEY.held_by, KEY.holds_due, KEY.trails, KEY.trail_bytes
local REVOKED, REVOKED_NUMBERS, REVOKED_ENDS = KEY.revoked, KEY.revoked_numbers, KEY.revoked_ends
local AGENDA, ORDER, EVENT_QUEUES = KEY.agenda, KEY.agenda_order, KEY.event_queues
local MISC, RECEIPTS, RECEIPT_TIMES = KEY.misc, KEY.receipts, KEY.receipt_times

-- The time is not known here, so a node whose lease has ended is told as well; it is not there to hear it.
local function wake_other_nodes(node, wake)
  for _, each in ipairs(redis.call('HKEYS', NODES)) do
    if each ~= node then
      wake_node(each, wake)
    end
  end
end

-- The incarnation, renewed_ms and lease_until_ms of a node's entry; nil for none, and for one that cannot be read. Release
-- 0.1.0 names no incarnation.
local function holder(entry)
  local packed = entry and string.match(entry, '^%a+ (.*)$')
  local read, info = pcall(cmsgpack.unpack, packed or '')
  if not packed or not read or type(info) ~= 'table' then
    return nil
  end
  local incarnation, renewed_ms, lease_until_ms = info.incarnation or '', info.renewed_ms or 0, info.lease_until_ms
  if type(incarnation) ~= 'string' or type(renewed_ms) ~= 'number' or type(lease_until_ms) ~= 'number' then
    return nil
  end
  return incarnation, renewed_ms, lease_until_ms
end

function operation.put_node(node, state, lease_until_ms, info, incarnation, now_ms, over, over_ms)
  local old = redis.call('HGET', NODES, node)
  local holds, renewed_ms, until_ms = holder(old)
  if holds and incarnation ~= '' and holds ~= incarnation then
    local is_dead = tonumber(over_ms) > 0 and holds == over and renewed_ms == tonumber(over_ms)
    if not is_dead and until_ms > tonumber(now_ms) then
      return {'taken', holds, renewed_ms, until_ms}
    end
  end
  redis.call('HSET', NODES, node, state .. ' ' .. info)
  redis.call('ZADD', LEASES, lease_until_ms, node)
  if not old or string.match(old, '^%a+') ~= state then
    wake_other_nodes(node, 'n')
  end
  return {'done'}
end

function operation.drop_node(node, incarnation)
  if incarnation ~= '' and holder(redis.call('HGET', NODES, node)) ~= incarnation then
    return {'done'}
  end
  redis.call('ZREM', LEASES, node)
  if redis.call('HDEL', NODES, node) == 1 then
    wake_other_nodes(node, 'n')
  end
  return {'done'}
end

function operation.list_nodes(now_ms)
  local gone_ms = string.format('(%.0f', tonumber(now_ms) - FORGET_NODE_AFTER_MS)
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', gone_ms)) do
    redis.call('HDEL', NODES, node)
    redis.call('ZREM', LEASES, node)
  end
  local found = {}
  for i, node in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '(' .. now_ms, '+inf')) do
    found[i] = redis.call('HGET', NODES, node)
  end
  return found
end

function operation.once(field, candidate)
  redis.call('HSETNX', MISC, field, candidate)
  return redis.call('HGET', MISC, field)
end

local function is_time(number)
  return type(number) == 'number' and number >= 0 and number < 2^53 and number % 1 == 0
end

-- The keys of API tokens as they are kept: {signs_from_ms, life_ms, secret}, in order of the first. Damaged ones count as lost.
local function kept_api_keys()
  local read, keys = pcall(cmsgpack.unpack, redis.call('HGET', MISC, 'api_keys') or '')
  if not read or type(keys) ~= 'table' then
    return {}
  end
  for _, key in ipairs(keys) do
    if type(key) ~= 'table' or not is_time(key[1]) or not is_time(key[2])
      or type(key[3]) ~= 'string' or #key[3] ~= API_KEY_BYTES then
      return {}
    end
  end
  return keys
end

-- As core/api_keys.renewed. ARGV 7...: the caller's keys, three words for each
function operation.read_api_keys(candidate, now_ms, rotate_ms, life_ms)
  local now, life = tonumber(now_ms), tonumber(life_ms)
  local keys, seen = {}, {}
  -- Behind all that begin to sign no later: the order of equals stays.
  local function add(signs_from, its_life, secret)
    if seen[secret] then
      return
    end
    seen[secret] = true
    if signs_from > now + API_KEY_AHEAD_MAX_MS then -- announced before the clock was set back
      signs_from = now + API_KEY_LEAD_MS
    end
    local place = #keys + 1
    while place > 1 and keys[place - 1][1] > signs_from do
      place = place - 1
    end
    table.insert(keys, place, {signs_from, its_life, secret})
  end
  for _, key in ipairs(kept_api_keys()) do
    add(key[1], key[2], key[3])
  end
  for i = 7, #ARGV, 3 do
    add(tonumber(ARGV[i]), tonumber(ARGV[i + 1]), ARGV[i + 2])
  end
  if #keys > 0 then
    keys[#keys][2] = math.max(keys[#keys][2], life)
    for place = #keys - 1, 1, -1 do
      if keys[place + 1][1] + keys[place][2] + API_KEY_LEAD_MS <= now then
        table.remove(keys, place)
      end
    end
    if candidate ~= '' and #keys == 1 and now - keys[1][1] >= tonumber(rotate_ms) then
      keys[2] = {now + API_KEY_LEAD_MS, life, candidate}
    end
  elseif candidate ~= '' then
    keys[1] = {now, life, candidate}
  end
  while #keys > API_KEYS_MAX do
    table.remove(keys, 1)
  end
  if #keys > 0 then
    redis.call('HSET', MISC, 'api_keys', cmsgpack.pack(keys))
  end
  local reply = {}
  for i, key in ipairs(keys) do
    reply[i] = {string.format('%.0f', key[1]), string.format('%.0f', key[2]), key[3]}
  end
  return reply
end

function operation.raise_format(format)
  -- A store without a number was written by release 0.1.0, as one with a damaged number is taken to be.
  local kept = math.max(FORMAT_UNSAID, tonumber(redis.call('HGET', MISC, 'format') or '') or FORMAT_UNSAID)
  if tonumber(format) > kept then
    kept = tonumber(format)
    redis.call('HSET', MISC, 'format', kept)
  end
  return kept
end

-- ARGV 4...: ids of keys that are retired
-- → ids of the keys under which values are sealed, `id` among them
function operation.use_seal_key(id)
  local before = redis.call('HGET', MISC, 'seal_keys') or ''
  local gone, kept = {}, {}
  for i = 4, #ARGV do
    gone[ARGV[i]] = true
  end
  local known = id == ''
  for each in string.gmatch(before, '%S+') do
    known = known or each == id
    if each == id or not gone[each] then
      kept[#kept + 1] = each
    end
  end
  if not known then
    kept[#kept + 1] = id
  end
  if table.concat(kept, ' ') ~= before then
    redis.call('HSET', MISC, 'seal_keys', table.concat(kept, ' '))
  end
  return kept
end

function operation.take_pace(tokens, rate_per_s, now_ms, party)
  local rate, now = tonumber(rate_per_s), tonumber(now_ms)
  if rate <= 0 then
    return '0'
  end
  local level = rate * PACE_BURST_S
  local name = party == 'client' and 'pace' or 'pace_workers'
  local v = redis.call('HMGET', MISC, name .. '_level', name .. '_at_ms')
  local kept, at = tonumber(v[1] or nil), tonumber(v[2] or nil)
  if kept and at and kept == kept and kept > -math.huge then
    if at - now <= CLOCK_SET_MS then
      now = math.max(now, at)
    end
    level = math.min(level, kept + rate * math.max(0, now - at) / 1000)
  end
  level = math.max(level - tonumber(tokens), -PACE_DEBT_MAX_S * rate)
  redis.call('HSET', MISC, name .. '_level', string.format('%.17g', level), name .. '_at_ms', now)
  return string.format('%.17g', math.max(0, -level / rate * 1000))
end

function operation.put_receipt(node, body, now_ms)
  redis.call('HSET', RECEIPTS, node, body)
  redis.call('ZADD', RECEIPT_TIMES, now_ms, node)
  for _, old in ipairs(redis.call('ZRANGE', RECEIPT_TIMES, 0, -RECEIPTS_MAX - 1)) do
    redis.call('HDEL', RECEIPTS, old)
    redis.call('ZREM', RECEIPT_TIMES, old)
  end
  return {'done'}
end

function operation.get_receipt(node)
  return redis.call('HGET', RECEIPTS, node) or ''
end

-- The latest first, then by name: node, ms, ...
function operation.list_receipts()
  local found = redis.call('ZRANGE', RECEIPT_TIMES, 0, -1, 'WITHSCORES')
  local listed = {}
  for i = 1, #found, 2 do
    listed[#listed + 1] = {found[i], tonumber(found[i + 1])}
  end
  table.sort(listed, function(a, b) return a[2] > b[2] or (a[2] == b[2] and a[1] < b[1]) end)
  local reply = {}
  for _, each in ipairs(listed) do
    reply[#reply + 1] = each[1]
    reply[#reply + 1] = string.format('%.0f', each[2])
  end
  return reply
end

-- The key set of an issuer: when it was fetched, and the set; nothing for one of another, and for a damaged one.
local function key_set(source)
  local kept, fetched_ms, body = string.match(redis.call('HGET', MISC, 'key_set') or '', '^(%S+) (%d+) (.*)$')
  if kept ~= source then
    return 0, ''
  end
  return tonumber(fetched_ms), body
end

function operation.keep_key_set(source, body, fetched_ms)
  if key_set(source) < tonumber(fetched_ms) then
    redis.call('HSET', MISC, 'key_set', source .. ' ' .. fetched_ms .. ' ' .. body)
  end
  return {'done'}
end

function operation.get_key_set(source)
  return {key_set(source)}
end

-- Proves that writing is possible.
function operation.check(now_ms)
  redis.call('HSET', MISC, 'checked_ms', now_ms)
  return {'done'}
end
