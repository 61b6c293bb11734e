-- Every operation on the registry: nodes, workers, pairings, the waiting line, the index of living sessions. It follows common.lua,
-- nodes.lua, line.lua and workers.lua; here are the lives of sessions, and what is counted for them.
--
-- ARGV   1 operation  2 the caller's node  3... the arguments of the function of `operation` that has its name

-- The sessions of a holder lie in HELD, as those of a worker in PAIRED: one order by holder, then by session.
local function held(holder, session)
  return holder .. '\0' .. session
end

local function hold(session, holders, due_ms)
  for _, holder in ipairs(holders) do
    redis.call('ZADD', HELD, 0, held(holder, session))
  end
  redis.call('HSET', HOLDS, session, table.concat(holders, ' '))
  redis.call('ZADD', HOLDS_DUE, due_ms, session)
end

-- Counts a session no more for any of its holders.
local function drop_hold(session)
  local holders = redis.call('HGET', HOLDS, session)
  for holder in string.gmatch(holders or '', '%S+') do
    redis.call('ZREM', HELD, held(holder, session))
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
      if redis.call('ZLEXCOUNT', HELD, '[' .. held(ARGV[i], ''), '(' .. ARGV[i] .. '\1') >= tonumber(holder_max) then
        return {'refused', 'holder'}
      end
    end
  end
  if #ARGV >= 8 then
    drop_hold(session)
    hold(session, {unpack(ARGV, 8)}, until_ms)
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

-- ARGV 4...: session and holder, or '', for each
function operation.keep_alive(until_ms)
  for i = 4, #ARGV, 2 do
    renew(ARGV[i], until_ms)
    if ARGV[i + 1] ~= '' and redis.call('HEXISTS', HOLDS, ARGV[i]) == 0 then
      hold(ARGV[i], {ARGV[i + 1]}, until_ms)
    end
  end
  return {'done'}
end

function operation.list_sessions_of(holder, after, limit)
  if tonumber(limit) <= 0 then
    return {}
  end
  local found = redis.call('ZRANGEBYLEX', HELD, '(' .. held(holder, after), '(' .. holder .. '\1', 'LIMIT', 0, limit)
  for i, each in ipairs(found) do
    found[i] = string.sub(each, #holder + 2)
  end
  return found
end

function operation.list_overdue(now_ms, limit)
  return tonumber(limit) > 0 and redis.call('ZRANGEBYSCORE', ALIVE, '-inf', now_ms, 'LIMIT', 0, limit) or {}
end

return operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 15)))
