-- Append with pieces of streams. It follows common.lua, head.lua and streams.lua, and does all that append.lua of a session does.
--
-- KEYS  1 head  2 log of client → worker  3 log of worker → client  4 chat history  5 jobs  6 pieces of their results  7 streams
-- ARGV  1 `append`  2 the party's node  3 client or worker  4 its epoch  5 ack (0: none)  6 backlog_max  7 history_max
--       8 history_bytes_max  9 now_ms  10 seq of the first entry  11 one 0 or 1 for each entry: is it of the history?
--       12... three words for each entry: its body with its seal, its mark and its piece, as `take_piece` has them; '' for none
-- → as append.lua, and {-6, last, acked, receiver's node, code, stream} for a piece that is refused
local ENTRIES = 12

local function keep(way, seq, place)
  local body, mark, piece = ARGV[place], ARGV[place + 1], ARGV[place + 2]
  local in_history = string.byte(ARGV[11], (place - ENTRIES) / 3 + 1) == 49
  if mark ~= '' then
    local said = cmsgpack.unpack(mark)
    local refused = take_piece(way, seq, said, piece, ARGV[9], 0, body)
    if refused then
      return refused, said[1]
    end
  elseif in_history then
    put_item(SENDER[way] .. body)
  end
  add(way, seq, in_history and 'h' or 'b', body)
  return nil
end

function operation.append(party, epoch, ack, backlog_max, history_max, history_bytes_max, now_ms, first)
  local way, back = 'up', 'down'
  if party == 'worker' then
    way, back = 'down', 'up'
  end
  local other = party == 'client' and 'worker' or 'client'
  local v = get(party .. '_epoch', party .. '_node', way .. '_last', way .. '_acked', other .. '_node', 'receipts', back .. '_acked')
  if not v[1] then
    return exists() and {-4, 0} or {-5}
  end
  if v[1] ~= epoch or v[2] ~= caller then
    return {tonumber(epoch) > tonumber(v[1]) and -4 or -3, tonumber(v[1])}
  end
  local woken = false
  if ack ~= '0' then
    acknowledge(back, tonumber(ack))
    woken = v[6] == '1' and get(back .. '_acked')[1] ~= v[7]
  end
  local last, acked, peer = tonumber(v[3]), tonumber(v[4]), v[5]
  first = tonumber(first)
  local final = first + (#ARGV - ENTRIES + 1) / 3 - 1
  local answer
  if final <= last then
    answer = {last, acked, peer}
  elseif first > last + 1 then
    answer = {-1, last}
  elseif final - acked > tonumber(backlog_max) then
    answer = {-2, last, acked}
  else
    local stored, code, stream = last, nil, nil
    for seq = last + 1, final do
      code, stream = keep(way, seq, ENTRIES + 3 * (seq - first))
      if code then
        break
      end
      stored = seq
    end
    if stored > last then
      set(way .. '_last', string.format('%.0f', stored))
      woken = true
    end
    if last == 0 then
      expire_with_head(LOGS[way])
    end
    bound_history(history_max, history_bytes_max)
    answer = code and {-6, stored, acked, peer, code, stream} or {final, acked, peer}
  end
  if woken then
    wake(peer)
  end
  return answer
end

return operation[ARGV[1]](unpack(ARGV, 3, 10))
