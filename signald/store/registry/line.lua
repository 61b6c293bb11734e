-- The registry: the waiting line, the lines by want, and pairs.

-- As in core/wants.py: the same nodes for the same labels.
local UNREADABLE = '!' -- the line of places that cannot be read: no offer suits them

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

-- A life is renewed, never shortened.
local function renew(session, until_ms)
  redis.call('ZADD', ALIVE, 'GT', until_ms, session)
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

function operation.release(session, name, again)
  if redis.call('HGET', PAIRS, session) == name then
    release(session, name, again)
  end
  return {'done'}
end
