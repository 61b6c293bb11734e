-- The updates of a room and the snapshot that stands for them (rules.py).

local function add_entry(list, position, entry)
  list[#list + 1], list[#list + 2], list[#list + 3], list[#list + 4] = position, entry[1], entry[2], entry[5]
end

-- The updates behind `after`: of each its position and entry, those that can be read; and the position of the last of `limit`, else 0.
local function read_updates(after, limit)
  local found, last = {}, 0
  local positions = redis.call('ZRANGEBYSCORE', UPDATES, '(' .. after, '+inf', 'LIMIT', 0, limit)
  for _, position in ipairs(positions) do
    local entry = read('l' .. position)
    if entry and entry[4] == 1 then
      found[#found + 1] = {tonumber(position), entry}
    end
  end
  if #positions > 0 and #positions == tonumber(limit) then
    last = tonumber(positions[#positions])
  end
  return found, last
end

function operation.snapshot_room(member, epoch, position, body, bounds)
  local seat, refusal = seated(member, epoch)
  if not seat then
    return refusal
  end
  bounds, position = cmsgpack.unpack(bounds), tonumber(position)
  if position > head[ROOM.position] then
    return {'refused', 'bad_position'}
  elseif position == head[ROOM.snapshot] then
    return {'done'} -- its answer was lost, or another member was earlier
  elseif position < head[ROOM.snapshot] then
    return {'refused', 'stale'}
  end
  local left = read_updates(position, UPDATES_MAX)
  local size = 0
  for _, update in ipairs(left) do
    size = size + update[2][3]
  end
  local body_bytes = #body - (string.byte(body) == SEAL_MARK and SEALED_BYTES or 0)
  local grown = body_bytes + size - head[ROOM.snapshot_bytes] - head[ROOM.updates_bytes]
  if grown > 0 and bytes_all() + grown > bounds[BOUND.room_bytes_max] then
    return {'refused', 'room_full'}
  end
  head[ROOM.snapshot], head[ROOM.snapshot_bytes] = position, body_bytes
  head[ROOM.updates], head[ROOM.updates_bytes] = #left, size
  redis.call('HSET', DATA, 's', seal('s', body) .. body, 'h', keep('h', head))
  local over = redis.call('ZRANGEBYSCORE', UPDATES, 0, position)
  local drops = {}
  for _, update in ipairs(over) do
    if tonumber(update) <= head[ROOM.floor] then
      drops[#drops + 1] = 'l' .. update
    end
  end
  for first = 1, #drops, WORDS_MAX do
    redis.call('HDEL', DATA, unpack(drops, first, math.min(#drops, first + WORDS_MAX - 1)))
  end
  for first = 1, #over, WORDS_MAX do
    redis.call('ZREM', UPDATES, unpack(over, first, math.min(#over, first + WORDS_MAX - 1)))
  end
  return {'done'}
end

function operation.read_room_updates(after, limit, now_ms)
  if not stand(now_ms) then
    return {'no_room'}
  end
  after = tonumber(after)
  local body = ''
  if after < head[ROOM.snapshot] then
    body = packed_in('s', redis.call('HGET', DATA, 's')) or ''
  end
  local updates, last = read_updates(math.max(after, head[ROOM.snapshot]), limit)
  local list = {}
  for _, update in ipairs(updates) do
    add_entry(list, update[1], update[2])
  end
  return {'updates', head[ROOM.epoch], head[ROOM.position], head[ROOM.snapshot], body, list, last > 0 and last or head[ROOM.position]}
end
