-- The operations on the event queue of a session: the twin of rules.py. It follows queue.lua. KEYS and ARGV are those of session.lua.

-- The numbers of the events that wait, from the first on.
local function event_numbers()
  local numbers = {}
  for _, field in ipairs(redis.call('HKEYS', queue_key)) do
    numbers[#numbers + 1] = tonumber(field)
  end
  table.sort(numbers)
  return numbers
end

-- → the first events, how many wait, how many were dropped, the number of the last one of the first
function operation.read_events(limit)
  local queue = read_queue()
  if not queue then
    return {'events', {}, 0, 0, 0}
  end
  local numbers, events, upto = event_numbers(), {}, 0
  for i = 1, math.min(#numbers, tonumber(limit)) do
    upto = numbers[i]
    events[i] = redis.call('HGET', queue_key, upto)
  end
  return {'events', events, #numbers, queue[QUEUE.dropped], upto}
end

function operation.drop_events(upto)
  local queue = read_queue()
  if not queue then
    redis.call('DEL', queue_key)
    return {'left', 0}
  end
  local waiting = 0
  for _, n in ipairs(event_numbers()) do
    if n <= tonumber(upto) then
      redis.call('HDEL', queue_key, n)
    else
      waiting = waiting + 1
    end
  end
  if waiting == 0 and not exists() then
    redis.call('DEL', queue_key)
  else
    queue[QUEUE.waiting] = waiting
    redis.call('HSET', queue_key, 'h', cmsgpack.pack(queue))
  end
  return {'left', waiting}
end

function operation.tell_event(nonce, kind, fields, events_max, now_ms)
  if exists() then
    set_events_max(events_max)
  end
  if not exists() or told_max() == 0 then
    return {'done'}
  end
  local queue = open_queue()
  for _, known in ipairs(queue[QUEUE.nonces]) do
    if known == nonce then
      return {'done'}
    end
  end
  remember(queue[QUEUE.nonces], nonce, NONCES_REMEMBERED)
  add_told(queue, kind, now_ms, cmsgpack.unpack(fields))
  return {'done'}
end
