-- Append, the hot path: nothing here that one message does not need.
--
-- KEYS  1 head  2 log of client → worker  3 log of worker → client  4 chat history
-- ARGV  1 c or w: the party  2 its node  3 its epoch  4 ack (0: none)  5 backlog_max  6 history_max  7 history_bytes_max
--       8 seq of the first body  9 one 0 or 1 for each body: is it of the history? ('': none is)
--       10... bodies, each with its seal (seals.py)
-- → {last, acked, receiver's node} | {-1, last} gap | {-2, last, acked} full | {-3, epoch} fenced | {-4, epoch} behind
--   | {-5} no session
local key = KEYS[1]
local client = ARGV[1] == 'c'
local v
if client then
  v = redis.call('HMGET', key, 'client_epoch', 'client_node', 'up_last', 'up_acked', 'worker_node')
else
  v = redis.call('HMGET', key, 'worker_epoch', 'worker_node', 'down_last', 'down_acked', 'client_node')
end
if not v[1] then
  -- A head without its fields is damaged, which is not the same as none.
  return redis.call('EXISTS', key) == 1 and {-4, 0} or {-5}
end
if v[1] ~= ARGV[3] or v[2] ~= ARGV[2] then
  local epoch = tonumber(v[1])
  return {tonumber(ARGV[3]) > epoch and -4 or -3, epoch}
end

local peer = v[5]
local wake = false
-- The ack counts even if the entries are refused: with both directions full, each side's acks may ride on messages that
-- cannot be stored before the other side's have been.
if ARGV[4] ~= '0' then
  local read
  if client then
    read = redis.call('HMGET', key, 'down_last', 'down_acked', 'receipts')
  else
    read = redis.call('HMGET', key, 'up_last', 'up_acked', 'receipts')
  end
  local ack = tonumber(ARGV[4]) <= tonumber(read[1]) and ARGV[4] or read[1]
  if tonumber(ack) > tonumber(read[2]) then
    redis.call('HSET', key, client and 'down_acked' or 'up_acked', ack)
    redis.call('XTRIM', client and KEYS[3] or KEYS[2], 'MINID', '~', ack .. '-1')
    wake = read[3] == '1'
  end
end

local last, acked, first = tonumber(v[3]), tonumber(v[4]), tonumber(ARGV[8])
local final = first + (#ARGV - 10)
local answer
if final <= last then
  answer = {last, acked, peer}
elseif first > last + 1 then
  answer = {-1, last}
elseif final - acked > tonumber(ARGV[5]) then
  answer = {-2, last, acked}
else
  local log = client and KEYS[2] or KEYS[3]
  -- Numbers are dear to format, and the usual format would round them above 10^14: mostly the one we were given will do.
  local seq = last + 1 == first and ARGV[8] or string.format('%.0f', last + 1)
  local i = 11 + (last - first)
  while true do
    local kind = string.byte(ARGV[9], i - 9) == 49 and 'h' or 'b'
    local done = redis.pcall('XADD', log, seq .. '-0', kind, ARGV[i])
    if type(done) == 'table' then
      if not string.find(done.err, 'equal or smaller', 1, true) then
        return done
      end
      -- A script that was denied a command half-way (ACL) left entries that its `last` never covered, so no party was told of
      -- them. They give way. XADD is allowed, as it answered, so nothing is lost between DEL and the end.
      local kept = redis.call('XRANGE', log, string.format('%.0f-0', acked + 1), string.format('%.0f-0', last))
      local left = redis.call('PTTL', log)
      redis.call('DEL', log)
      for _, entry in ipairs(kept) do
        redis.call('XADD', log, entry[1], entry[2][1], entry[2][2])
      end
      redis.call('XADD', log, seq .. '-0', kind, ARGV[i])
      if left > 0 then
        redis.call('PEXPIRE', log, left)
      end
    end
    if i == #ARGV then
      break
    end
    i = i + 1
    seq = string.format('%.0f', first + (i - 10))
  end
  redis.call('HSET', key, client and 'up_last' or 'down_last', seq)

  -- A key is born with what is left of the head's safety TTL; see `touch_all` in head.lua.
  if last == 0 then
    local left = redis.call('PTTL', key)
    if left > 0 then
      redis.call('PEXPIRE', log, left)
    end
  end

  if ARGV[9] ~= '' then
    local count = 0
    local kept = redis.call('HMGET', key, 'history_bytes', 'history_parts')
    local bytes, parts = tonumber(kept[1]), tonumber(kept[2] or 0)
    for j = 11 + (last - first), #ARGV do
      if string.byte(ARGV[9], j - 9) == 49 then
        count = redis.call('RPUSH', KEYS[4], ARGV[1] .. ARGV[j])
        bytes = bytes + #ARGV[j] - (string.byte(ARGV[j]) == SEAL_MARK and SEALED_BYTES or SEAL_BYTES)
        if count == 1 then
          local left = redis.call('PTTL', key)
          if left > 0 then
            redis.call('PEXPIRE', KEYS[4], left)
          end
        end
      end
    end
    while count > 0 and (count - parts > tonumber(ARGV[6]) or bytes > tonumber(ARGV[7])) do
      local item = redis.call('LPOP', KEYS[4])
      -- As `size_of_item` of streams.lua.
      local sealed = string.byte(item, 2) == SEAL_MARK or string.find(item, '^[CW]p%d+ ' .. string.char(SEAL_MARK))
      bytes = bytes + (sealed and SEALED_BYTES or SEAL_BYTES) + 1 - #item
      count = count - 1
      -- An item that begins no entry; see `is_part` in streams.lua.
      if parts > 0 and string.find(item, '^[CW]') and string.sub(item, 2, 4) ~= 'p0 ' then
        parts = parts - 1
        redis.call('HSET', key, 'history_parts', parts)
      end
    end
    redis.call('HSET', key, 'history_bytes', bytes)
  end
  answer = {final, acked, peer}
  wake = true
end
if wake and peer ~= '' and peer ~= ARGV[2] then
  redis.call('PUBLISH', CHANNEL .. peer, 's' .. string.sub(key, ID_FROM, -2))
end
return answer
