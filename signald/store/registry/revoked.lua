-- The registry: principals whose tokens are revoked. The keys are described in nodes.lua.

-- The number, at_ms and until_ms of what is kept for a principal; nil for none, and for what cannot be read.
local function revocation(principal)
  local number, at_ms, until_ms = string.match(redis.call('HGET', REVOKED, principal) or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(number or nil), tonumber(at_ms or nil), tonumber(until_ms or nil)
end

function operation.revoke(principal, at_ms, until_ms, now_ms, revoked_max)
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', REVOKED_ENDS, '-inf', now_ms, 'LIMIT', 0, REVOKED_DROPPED)) do
    redis.call('HDEL', REVOKED, each)
    redis.call('ZREM', REVOKED_NUMBERS, each)
    redis.call('ZREM', REVOKED_ENDS, each)
  end
  local number, kept_at, kept_until = revocation(principal)
  if number and kept_at >= tonumber(at_ms) and kept_until >= tonumber(until_ms) then
    return {'revoked', number}
  end
  if not number and #redis.call('ZRANGE', REVOKED_NUMBERS, revoked_max - 1, revoked_max - 1) > 0 then
    return {'refused', 'full'}
  end
  local last = redis.call('ZRANGE', REVOKED_NUMBERS, -1, -1, 'WITHSCORES')[2]
  number = math.max((tonumber(last or nil) or 0) + 1, tonumber(now_ms))
  local at, ends = math.max(kept_at or 0, tonumber(at_ms)), math.max(kept_until or 0, tonumber(until_ms))
  redis.call('HSET', REVOKED, principal, string.format('%.0f %.0f %.0f', number, at, ends))
  redis.call('ZADD', REVOKED_NUMBERS, string.format('%.0f', number), principal)
  redis.call('ZADD', REVOKED_ENDS, string.format('%.0f', ends), principal)
  wake_other_nodes(caller, 'v')
  return {'revoked', number}
end

-- → how far was looked, the last number, and principal, number, at_ms and until_ms of each
function operation.list_revoked(after, limit, now_ms)
  local last = redis.call('ZRANGE', REVOKED_NUMBERS, -1, -1, 'WITHSCORES')[2] or '0'
  local found, upto = {after, last}, after
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', REVOKED_NUMBERS, '(' .. after, '+inf', 'LIMIT', 0, limit)) do
    upto = redis.call('ZSCORE', REVOKED_NUMBERS, each)
    local number, at_ms, until_ms = revocation(each)
    if number and until_ms > tonumber(now_ms) then
      found[#found + 1] = each
      found[#found + 1] = number
      found[#found + 1] = at_ms
      found[#found + 1] = until_ms
    end
  end
  found[1] = upto
  return found
end
