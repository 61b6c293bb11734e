-- Every operation on the registry: nodes, workers, pairings, the waiting line, the index of living sessions.
--
-- KEYS   1 nodes: id → state, info   2 leases: id by lease_until_ms   3 workers: id → cmsgpack (see `worker`)
--        4 pairs: session → worker   5 paired: worker NUL session, for ranges   6 waiting: session by order_ms
--        7 line: session → order_ms, want; kept while it waits or is paired   8 alive: session by alive_until_ms
--        9 misc   10 receipts: node → body   11 receipt times: node by now_ms
--        12 lines: node NUL order_ms (16 digits) NUL session, for ranges   13 spots: session → order_ms, path
--        14 wanted: node → how many sessions want what is reached over it
--        12 to 14 are the waiting line again, by want (core/wants.py). Earlier releases write 6 and 7 alone, and those hold.
--        15 holds: session → holders, each behind a space   16 held: holder → sessions   17 holds due: session by when its
--        count is to be looked at   18 trails: session by when its trail is forgotten   19 trail bytes: session → what its
--        trail counts for, "" → the sum
-- ARGV   1 operation  2 the caller's node  3... the arguments of the function below that has its name
local NODES, LEASES, WORKERS, PAIRS, PAIRED, WAITING, LINE, ALIVE, MISC, RECEIPTS, RECEIPT_TIMES, LINES, SPOTS,
  WANTED, HOLDS, HELD, HOLDS_DUE, TRAILS, TRAIL_SIZES = unpack(KEYS)
local caller = ARGV[2]
local FORGET_NODE_AFTER_MS = 60000
local RECEIPTS_MAX = 100
local HOLDS_CHECKED = 16 -- see records.py
local HOLD_CHECK_MS = 60000
local TRAIL_BYTES = 256
local TRAILS_EXPIRED = 64
local TRAILS_DROPPED = 1000
local RETIRED_MAX = 8
local CLAIMS_REMEMBERED = 8
local PACE_BURST_S = 0.05
local PACE_DEBT_MAX_S = 600
local CLOCK_SET_MS = 60000 -- see base.py

-- Places in a worker's record. Claims: {{nonce, epoch, previous node, asked_ms, attempt}...}
local NODE, EPOCH, CLAIMS, PRINCIPAL, INSTANCE, LABELS, CAPACITY, LEAVING, AWAY, CURRENT, PREVIOUS, RETIRED =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12

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

local function wake(node, what)
  if node ~= '' and node ~= caller then
    redis.call('PUBLISH', 'signald:node:' .. node, what)
  end
end

-- The time is not known here, so a node whose lease has ended is told as well; it is not there to hear it.
local function wake_other_nodes(node)
  for _, each in ipairs(redis.call('HKEYS', NODES)) do
    if each ~= node then
      wake(each, 'n')
    end
  end
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

-- As in core/wants.py: the same nodes for the same labels.
local TENANT = 'signald:tenant, as the token of the party says; no label of a party has a name as long as this'
local ROOT = '0'
local UNREADABLE = '!' -- the line of places that cannot be read: no offer suits them
local DIGEST = 20

local function digest(text)
  return string.sub(redis.sha1hex(text), 1, DIGEST)
end

local function is_before(a, b)
  -- By number: how strings compare depends on the server's locale.
  if a[1] == b[1] then
    return a[2] < b[2]
  end
  return a[1] < b[1]
end

-- The nodes on the way to a want. One script may ask for the same one many times.
local paths = {}

local function path_of(want)
  if paths[want] then
    return paths[want]
  end
  local read, labels = pcall(cjson.decode, want)
  local steps, path, node = {}, {}, ''
  if not read or type(labels) ~= 'table' then
    return {UNREADABLE}
  end
  for name, value in pairs(labels) do
    if type(name) ~= 'string' or type(value) ~= 'string' then
      return {UNREADABLE}
    end
    local step = digest(name .. '\0' .. value)
    steps[#steps + 1] = {name == TENANT and -1 or tonumber(string.sub(step, 1, 12), 16), step}
  end
  table.sort(steps, is_before)
  for i, step in ipairs(steps) do
    node = digest(node .. step[2])
    path[i] = node
  end
  if #path == 0 then
    path[1] = ROOT
  end
  paths[want] = path
  return path
end

local function in_line(node, order, session)
  return node .. '\0' .. string.rep('0', 16 - #order) .. order .. '\0' .. session
end

-- Lets the lines by want have `session` with `order` and `want`; without them, not at all.
local function stand(session, order, want)
  local path = order and path_of(want)
  local spot = path and order .. ' ' .. table.concat(path, ' ')
  local was = redis.call('HGET', SPOTS, session)
  if was == (spot or false) then
    return
  end
  if was then
    local before, nodes = string.match(was, '^(%d+) (.*)$')
    local last
    for node in string.gmatch(nodes or '', '%S+') do
      last = node
      if redis.call('HINCRBY', WANTED, node, -1) <= 0 then
        redis.call('HDEL', WANTED, node)
      end
    end
    if last then
      redis.call('ZREM', LINES, in_line(last, before, session))
    end
    redis.call('HDEL', SPOTS, session)
  end
  if spot then
    for _, node in ipairs(path) do
      redis.call('HINCRBY', WANTED, node, 1)
    end
    redis.call('ZADD', LINES, 0, in_line(path[#path], order, session))
    redis.call('HSET', SPOTS, session, spot)
  end
end

-- Where a session waits by what earlier releases write as well: order_ms and want; nil when it does not wait.
local function place_of(session)
  local score = redis.call('ZSCORE', WAITING, session)
  if not score then
    return nil
  end
  local order, want = string.match(redis.call('HGET', LINE, session) or '', '^(%d+) (.*)$')
  return string.format('%.0f', score), order and want or ''
end

local function pair(session, name)
  redis.call('HSET', PAIRS, session, name)
  redis.call('ZADD', PAIRED, 0, name .. '\0' .. session)
  redis.call('ZREM', WAITING, session)
  stand(session)
end

local function unpair(session, name)
  redis.call('HDEL', PAIRS, session)
  redis.call('ZREM', PAIRED, name .. '\0' .. session)
end

local function requeue(session)
  local place = redis.call('HGET', LINE, session)
  local order, want = string.match(place or '', '^(%d+) (.*)$')
  if order then
    redis.call('ZADD', WAITING, order, session)
    stand(session, order, want)
  end
end

local function release(session, name, again)
  unpair(session, name)
  if again == '1' then
    requeue(session)
  else
    redis.call('HDEL', LINE, session)
  end
end

local function retire(retired, token)
  if token ~= '' then
    retired[#retired + 1] = token
    if #retired > RETIRED_MAX then
      table.remove(retired, 1)
    end
  end
end

-- As in session.lua. Equal strings are one object in Lua, so `==` compares addresses and takes the same time always.
local function present(record, presented, issued, tied)
  for _, old in ipairs(record[RETIRED]) do
    if old == presented and tied then
      return 'late'
    elseif old == presented then
      retire(record[RETIRED], record[PREVIOUS])
      retire(record[RETIRED], record[CURRENT])
      record[CURRENT], record[PREVIOUS] = '', ''
      return 'token_reuse'
    end
  end
  if record[CURRENT] == '' then
    return #record[RETIRED] > 0 and 'revoked' or 'unknown'
  end
  if record[CURRENT] == presented then
    retire(record[RETIRED], record[PREVIOUS])
  elseif record[PREVIOUS] ~= '' and record[PREVIOUS] == presented then
    retire(record[RETIRED], record[CURRENT])
  else
    return 'unknown'
  end
  record[CURRENT], record[PREVIOUS] = issued, presented
  return nil
end

local function claimed(name, claim)
  return {'claimed', claim[2], sessions_of(name), claim[3]}
end

local function find_claim(record, nonce)
  for _, claim in ipairs(record[CLAIMS]) do
    if claim[1] == nonce then
      return claim
    end
  end
  return nil
end

-- A life is renewed, never shortened.
local function renew(session, until_ms)
  redis.call('ZADD', ALIVE, 'GT', until_ms, session)
end

local operation = {}

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
    wake_other_nodes(node)
  end
  return {'done'}
end

function operation.drop_node(node, incarnation)
  if incarnation ~= '' and holder(redis.call('HGET', NODES, node)) ~= incarnation then
    return {'done'}
  end
  redis.call('ZREM', LEASES, node)
  if redis.call('HDEL', NODES, node) == 1 then
    wake_other_nodes(node)
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

function operation.raise_format(format)
  -- A store without a number was written by release 0.1.0, as one with a damaged number is taken to be.
  local kept = math.max(1, tonumber(redis.call('HGET', MISC, 'format') or '') or 1)
  if tonumber(format) > kept then
    kept = tonumber(format)
    redis.call('HSET', MISC, 'format', kept)
  end
  return kept
end

function operation.register(name, nonce, principal, instance, labels, capacity, token, now_ms)
  local record, damaged = worker(name)
  local claim
  if record or damaged then
    claim = record and find_claim(record, nonce)
    if not claim then
      return {'refused', 'exists'}
    end
  else
    claim = {nonce, 1, '', tonumber(now_ms)}
    put_worker(name, {caller, 1, {claim}, principal, instance, labels, tonumber(capacity), 0, 0, token, '', {}})
  end
  return claimed(name, claim)
end

function operation.claim(name, nonce, principal, presented, issued, labels, capacity, now_ms, attempt)
  local record, damaged = worker(name)
  if not record then
    return {'refused', damaged and 'unreadable' or 'unknown'}
  end
  local claim = find_claim(record, nonce)
  if claim then
    return claimed(name, claim)
  end
  if record[PRINCIPAL] ~= principal then
    return {'refused', 'principal'} -- before the token, as in session.lua
  end
  local last = record[CLAIMS][#record[CLAIMS]]
  local before_ms = last and last[4] and last[4] - tonumber(now_ms) or 0
  if before_ms > 0 and before_ms <= CLOCK_SET_MS then
    return {'refused', 'late'} -- the last claim that was granted had been asked for after this one
  end
  -- A later attempt of the party was granted not long ago, with the same token. Earlier releases keep no attempt.
  local kept = last and type(last[5]) == 'number' and last[5] or 0
  local earlier = tonumber(attempt) > 0 and tonumber(attempt) < kept
  local outdone = record[PREVIOUS] == presented and earlier and math.abs(before_ms) <= CLOCK_SET_MS
  local refused = present(record, presented, issued, earlier and last[4] == tonumber(now_ms))
  if refused then
    if refused == 'token_reuse' then
      put_worker(name, record)
    end
    return {'refused', refused}
  end
  if outdone then
    return {'refused', 'late'}
  end
  local before = record[NODE]
  claim = {nonce, record[EPOCH] + 1, before, tonumber(now_ms), tonumber(attempt)}
  local claims = record[CLAIMS]
  claims[#claims + 1] = claim
  if #claims > CLAIMS_REMEMBERED then
    table.remove(claims, 1)
  end
  record[NODE], record[EPOCH] = caller, claim[2]
  record[LABELS], record[CAPACITY], record[LEAVING], record[AWAY] = labels, tonumber(capacity), 0, 0
  put_worker(name, record)
  wake(before, 'w' .. name)
  return claimed(name, claim)
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

function operation.remove(name, epoch, again)
  local record, damaged = worker(name)
  if not damaged and (not record or (epoch ~= '0' and record[EPOCH] ~= tonumber(epoch))) then
    return {}
  end
  local sessions = sessions_of(name)
  for _, session in ipairs(sessions) do
    release(session, name, again)
  end
  redis.call('HDEL', WORKERS, name)
  wake(record and record[NODE] or '', 'w' .. name)
  return sessions
end

-- ARGV 12...: session, order_ms and want, for each pairing
function operation.reseed(name, epoch, principal, instance, labels, capacity, current, previous, now_ms)
  local record = worker(name)
  if not record or tonumber(epoch) > record[EPOCH] then
    local retired = record and record[RETIRED] or {}
    put_worker(name, {caller, tonumber(epoch), {}, principal, instance, labels, tonumber(capacity), 0, 0, current, previous,
      retired})
  end
  for i = 12, #ARGV, 3 do
    local session = ARGV[i]
    if not redis.call('HGET', PAIRS, session) then
      redis.call('HSET', LINE, session, ARGV[i + 1] .. ' ' .. ARGV[i + 2])
      pair(session, name)
    end
    -- Due at once: whoever looks after the overdue finds out whether the session still lives. Otherwise one whose client's
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

function operation.leave(session)
  if redis.call('ZREM', WAITING, session) == 1 then
    redis.call('HDEL', LINE, session)
  end
  stand(session)
  return {'done'}
end

-- → session, order_ms and want, for each
function operation.list_waiting(limit)
  local found = {}
  if tonumber(limit) > 0 then
    for _, session in ipairs(redis.call('ZRANGE', WAITING, 0, tonumber(limit) - 1)) do
      local place = redis.call('HGET', LINE, session) or ''
      local order, want = string.match(place, '^(%d+) (.*)$')
      found[#found + 1] = {session, order or '', want or ''}
    end
  end
  return found
end

local function size(key)
  return redis.call('ZLEXCOUNT', key, '-', '+') -- ZCARD is not among the commands that earlier releases asked for
end

-- Reads up to `share` places of the line at `node`. Those that an earlier release has changed are put right on the way.
local function read_line(node, share, found)
  local from, wanted = '[' .. node .. '\0', share
  for _ = 1, 8 do
    local lot = redis.call('ZRANGEBYLEX', LINES, from, '(' .. node .. '\1', 'LIMIT', 0, wanted)
    for _, each in ipairs(lot) do
      local session = string.sub(each, #node + 19)
      local order, want = place_of(session)
      if order and in_line(path_of(want)[#path_of(want)], order, session) == each then
        found[#found + 1] = {session, order, want}
        share = share - 1
      else
        redis.call('ZREM', LINES, each) -- also when no spot names it
        stand(session)
        stand(session, order, want)
      end
      from = '(' .. each
    end
    if share == 0 or #lot < wanted then
      return
    end
    wanted = share
  end
end

-- ARGV 5...: offers: where the search begins and its steps, each in `DIGEST` characters but the empty beginning
-- → whether the lines are behind; then session, order_ms and want, for each
function operation.list_suited(limit, edges_max)
  local heads, seen, found = {}, {}, {}
  limit, edges_max = tonumber(limit), tonumber(edges_max)
  for i = 5, #ARGV do
    local begin, rest = string.match(ARGV[i], '^(%x*) ?(.*)$')
    local steps, queue, asked = {}, {{begin, 1}}, 0
    for step in string.gmatch(rest, '%x+') do
      steps[#steps + 1] = step
    end
    local at = 1
    while queue[at] do
      local node, first = queue[at][1], queue[at][2]
      local line = node == '' and ROOT or node
      if not seen[line] then
        seen[line] = true
        local head = redis.call('ZRANGEBYLEX', LINES, '[' .. line .. '\0', '(' .. line .. '\1', 'LIMIT', 0, 1)[1]
        if head then
          heads[#heads + 1] = {tonumber(string.sub(head, #line + 2, #line + 17)) or 0, line}
        end
      end
      if at == 1 or asked < edges_max then
        for place = first, #steps do
          asked = asked + 1
          local child = digest(node .. steps[place])
          if redis.call('HEXISTS', WANTED, child) == 1 then
            queue[#queue + 1] = {child, place + 1}
          end
        end
      end
      at = at + 1
    end
  end
  table.sort(heads, is_before)
  local lines = math.min(#heads, limit)
  for i = 1, lines do
    read_line(heads[i][2], math.floor(limit / lines), found)
  end
  read_line(UNREADABLE, 1, found) -- which is reported, and left out
  local behind = size(WAITING) ~= size(LINES) and 1 or 0
  for _, session in ipairs(redis.call('ZRANGE', WAITING, -4, -1)) do
    if redis.call('HEXISTS', SPOTS, session) == 0 then
      behind = 1 -- an earlier release puts its sessions here
    end
  end
  return {behind, found}
end

-- → where to go on; 0 when all of it has been looked at
function operation.mend_line(cursor, limit)
  local from, count = tonumber(cursor), tonumber(limit)
  -- The last ones first: what an earlier release has just put there.
  for _, range in ipairs({{-16, -1}, {from, from + count - 1}}) do
    for _, session in ipairs(redis.call('ZRANGE', WAITING, range[1], range[2])) do
      stand(session, place_of(session))
    end
  end
  for _, each in ipairs(redis.call('ZRANGE', LINES, from, from + count - 1)) do
    local session = string.match(each, '^[^%z]*%z[^%z]*%z(.*)$')
    stand(session, place_of(session))
    if redis.call('HEXISTS', SPOTS, session) == 0 then
      redis.call('ZREM', LINES, each)
    end
  end
  return from + count < math.max(size(WAITING), size(LINES)) and from + count or 0
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
        wake(record[NODE], 'w' .. name)
      end
    end
    held[#held + 1] = holds
  end
  return held
end

function operation.release(session, name, again)
  if redis.call('HGET', PAIRS, session) == name then
    release(session, name, again)
  end
  return {'done'}
end

-- Counts a session no more for any of its holders.
local function drop_hold(session)
  local holders = redis.call('HGET', HOLDS, session)
  for holder in string.gmatch(holders or '', '%S+') do
    if redis.call('HINCRBY', HELD, holder, -1) <= 0 then
      redis.call('HDEL', HELD, holder)
    end
  end
  redis.call('HDEL', HOLDS, session)
  redis.call('ZREM', HOLDS_DUE, session)
end

-- ARGV 8...: holders
function operation.hold(session, sessions_max, holder_max, until_ms, now_ms)
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', HOLDS_DUE, '-inf', now_ms, 'LIMIT', 0, HOLDS_CHECKED)) do
    local lives_until = redis.call('ZSCORE', ALIVE, each)
    if lives_until then
      redis.call('ZADD', HOLDS_DUE, math.max(tonumber(lives_until), tonumber(now_ms) + HOLD_CHECK_MS), each)
    else
      drop_hold(each)
    end
  end
  if not redis.call('ZSCORE', ALIVE, session) then
    -- By rank, not by ZCARD: that is no command an operator's ACL for earlier releases allows.
    if #redis.call('ZRANGE', ALIVE, sessions_max - 1, sessions_max - 1) > 0 then
      return {'refused', 'sessions'}
    end
    for i = 8, #ARGV do
      if (tonumber(redis.call('HGET', HELD, ARGV[i]) or 0) or 0) >= tonumber(holder_max) then
        return {'refused', 'holder'}
      end
    end
  end
  if #ARGV >= 8 then
    drop_hold(session)
    for i = 8, #ARGV do
      redis.call('HINCRBY', HELD, ARGV[i], 1)
    end
    redis.call('HSET', HOLDS, session, table.concat(ARGV, ' ', 8))
    redis.call('ZADD', HOLDS_DUE, until_ms, session)
  end
  renew(session, until_ms)
  return {'done'}
end

function operation.forget(session)
  local name = redis.call('HGET', PAIRS, session)
  if name then
    unpair(session, name)
  end
  redis.call('ZREM', WAITING, session)
  stand(session)
  redis.call('HDEL', LINE, session)
  redis.call('ZREM', ALIVE, session)
  drop_hold(session)
  return {'done'}
end

-- ARGV 7...: session and bytes, for each trail that grows
function operation.count_trails(bytes_max, trail_bytes_max, until_ms, now_ms)
  local total = tonumber(redis.call('HGET', TRAIL_SIZES, '') or '0')
  if not total or total < 0 then -- damaged: it is the sum of the others
    total = 0
    local all = redis.call('HGETALL', TRAIL_SIZES)
    for i = 1, #all, 2 do
      total = total + (all[i] ~= '' and tonumber(all[i + 1]) or 0)
    end
  end
  local function count(session, bytes)
    total = total - (tonumber(redis.call('HGET', TRAIL_SIZES, session) or '0') or 0) + bytes
    if bytes > 0 then
      redis.call('HSET', TRAIL_SIZES, session, string.format('%.0f', bytes))
    else
      redis.call('HDEL', TRAIL_SIZES, session)
      redis.call('ZREM', TRAILS, session)
    end
  end
  local over = TRAILS_EXPIRED + #ARGV - 6
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', TRAILS, '-inf', now_ms, 'LIMIT', 0, over)) do
    count(each, 0)
  end
  for i = 7, #ARGV, 2 do
    local session, kept = ARGV[i], redis.call('HGET', TRAIL_SIZES, ARGV[i])
    local kept_until = tonumber(redis.call('ZSCORE', TRAILS, session) or nil)
    local bytes = (tonumber(kept or nil) or TRAIL_BYTES) + tonumber(ARGV[i + 1])
    count(session, math.min(tonumber(trail_bytes_max), bytes))
    redis.call('ZADD', TRAILS, math.max(tonumber(until_ms), kept_until or 0), session)
  end
  local named = {}
  if total > tonumber(bytes_max) then
    for _, oldest in ipairs(redis.call('ZRANGE', TRAILS, 0, TRAILS_DROPPED - 1)) do
      if total <= tonumber(bytes_max) then
        break
      end
      count(oldest, 0)
      named[#named + 1] = oldest
    end
  end
  redis.call('HSET', TRAIL_SIZES, '', string.format('%.0f', total))
  return named
end

-- ARGV 4...: sessions
function operation.keep_alive(until_ms)
  for i = 4, #ARGV do
    renew(ARGV[i], until_ms)
  end
  return {'done'}
end

function operation.list_overdue(now_ms, limit)
  return tonumber(limit) > 0 and redis.call('ZRANGEBYSCORE', ALIVE, '-inf', now_ms, 'LIMIT', 0, limit) or {}
end

function operation.take_pace(tokens, rate_per_s, now_ms)
  local rate, now = tonumber(rate_per_s), tonumber(now_ms)
  if rate <= 0 then
    return '0'
  end
  local level = rate * PACE_BURST_S
  local v = redis.call('HMGET', MISC, 'pace_level', 'pace_at_ms')
  local kept, at = tonumber(v[1] or nil), tonumber(v[2] or nil)
  if kept and at and kept == kept and kept > -math.huge then
    if at - now <= CLOCK_SET_MS then
      now = math.max(now, at)
    end
    level = math.min(level, kept + rate * math.max(0, now - at) / 1000)
  end
  level = math.max(level - tonumber(tokens), -PACE_DEBT_MAX_S * rate)
  redis.call('HSET', MISC, 'pace_level', string.format('%.17g', level), 'pace_at_ms', now)
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

-- Proves that writing is possible.
function operation.check(now_ms)
  redis.call('HSET', MISC, 'checked_ms', now_ms)
  return {'done'}
end

return operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 12)))
