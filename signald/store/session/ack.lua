-- Ack, on the hot path as well.
--
-- KEYS  1 head  2 log of client → worker  3 log of worker → client
-- ARGV  1 c or w: the party  2 its node  3 its epoch  4 seq
-- → {0} | {-3, epoch} fenced | {-4, epoch} behind | {-5} no session
local key = KEYS[1]
local client = ARGV[1] == 'c'
local v
if client then
  v = redis.call('HMGET', key, 'client_epoch', 'client_node', 'down_last', 'down_acked', 'worker_node', 'receipts')
else
  v = redis.call('HMGET', key, 'worker_epoch', 'worker_node', 'up_last', 'up_acked', 'client_node', 'receipts')
end
if not v[1] then
  return redis.call('EXISTS', key) == 1 and {-4, 0} or {-5}
end
if v[1] ~= ARGV[3] or v[2] ~= ARGV[2] then
  local epoch = tonumber(v[1])
  return {tonumber(ARGV[3]) > epoch and -4 or -3, epoch}
end
local ack = tonumber(ARGV[4]) <= tonumber(v[3]) and ARGV[4] or v[3]
if tonumber(ack) > tonumber(v[4]) then
  redis.call('HSET', key, client and 'down_acked' or 'up_acked', ack)
  -- ~: whole blocks of the stream only, which is much cheaper. What stays behind is never read: readers start above acked.
  redis.call('XTRIM', client and KEYS[3] or KEYS[2], 'MINID', '~', ack .. '-1')
  if v[6] == '1' and v[5] ~= '' and v[5] ~= ARGV[2] then
    redis.call('PUBLISH', CHANNEL .. v[5], 's' .. string.sub(key, ID_FROM, -2))
  end
end
return {0}
