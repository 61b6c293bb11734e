-- Look: how messages and news of the peer reach the other node, so as often run as messages cross nodes.
--
-- KEYS  1 head  2 log of client → worker  3 log of worker → client
-- ARGV  1 c or w: the reader  2 after  3 limit
-- → {head, entries of the stream} | {} no session. A head that lacks a field is damaged, and the reader of the reply finds that.
local head = redis.call('HMGET', KEYS[1], HEAD_FIELDS)
if not head[HEAD.created_ms] and redis.call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local reads_down = ARGV[1] == 'c'
-- Trimming leaves acked entries behind: they are not part of the log any more.
local from = math.max(tonumber(ARGV[2]), tonumber(head[reads_down and HEAD.down_acked or HEAD.up_acked])) + 1
local limit = tonumber(ARGV[3])
if limit <= 0 or from > tonumber(head[reads_down and HEAD.down_last or HEAD.up_last]) then
  return {head, {}}
end
return {head, redis.call('XRANGE', reads_down and KEYS[3] or KEYS[2], string.format('%.0f-0', from), '+', 'COUNT', limit)}
