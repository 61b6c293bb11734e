-- The records of a room: what a publication makes of them, and removals (rules.py).

-- Properties as name and value by turns.
local function flat(properties)
  local list = {}
  for _, property in ipairs(properties) do
    list[#list + 1], list[#list + 2] = property[1], property[2]
  end
  return list
end

-- The properties `known` after a patch. A property keeps its place, and a new one stands last.
local function patched(known, patch)
  local list, place, left = {}, {}, {}
  for at = 1, #known, 2 do
    list[at], list[at + 1], place[known[at]] = known[at], known[at + 1], at
  end
  for _, property in ipairs(patch) do
    local name, value = property[1], property[2]
    local at = place[name]
    if value == 'null' then
      place[name] = nil
      if at then
        list[at + 1] = false
      end
    elseif at then
      list[at + 1] = value
    else
      place[name] = #list + 1
      list[#list + 1], list[#list + 2] = name, value
    end
  end
  for at = 1, #list, 2 do
    if list[at + 1] then
      left[#left + 1], left[#left + 2] = list[at], list[at + 1]
    end
  end
  return left
end

local function size_of(name, properties)
  local size = #name
  for place, word in ipairs(properties) do
    -- A sealed value counts for its content; see seals.py.
    local sealed = place % 2 == 0 and string.byte(word) == TEXT_MARK
    size = size + (sealed and math.floor((#word - 1) * 3 / 4) - SEALED_BYTES or #word)
  end
  return size
end

-- The properties of a record that is there; nil when it is removed.
local function properties_of(record)
  if not record or record[2] == 0 then
    return nil
  end
  local list = {}
  for place = 4, #record do
    list[place - 3] = record[place]
  end
  return list
end

-- Counts records anew, after damage: what cannot be read has no bytes.
local function count_records()
  local records, size, tombstones = 0, 0, 0
  for _, name in ipairs(redis.call('ZRANGE', CHANGES, 0, -1)) do
    local record, is_there = read('r' .. name)
    if record and record[2] == 0 then
      tombstones = tombstones + 1
    elseif is_there then
      records, size = records + 1, size + (record and record[3] or 0)
    end
  end
  head[ROOM.records], head[ROOM.bytes], head[ROOM.tombstones] = records, size, tombstones
end

-- The oldest removal and its position; nil when there is none. What a script that was cut short has entered too early goes.
local function first_tombstone()
  while true do
    local name, position = unpack(redis.call('ZRANGE', REMOVED, 0, 0, 'WITHSCORES'))
    if not name then
      return nil
    end
    local record = read('r' .. name)
    if not record or record[2] == 0 then
      return name, tonumber(position)
    end
    redis.call('ZREM', REMOVED, name)
  end
end

-- What a publication makes of records: ids, the records before, and after it (false: removed); and what is there but cannot be read.
local function fold(said)
  local names, before, after, there, is_damaged = {}, {}, {}, {}, false
  local function touch(name)
    if before[name] == nil then
      local known, is_there = read('r' .. name)
      names[#names + 1] = name
      before[name], there[name] = known or false, is_there
      is_damaged = is_damaged or is_there and not known
    end
  end
  for _, put in ipairs(said[SAID.puts]) do
    touch(put[1])
    after[put[1]] = flat(put[2])
  end
  for _, patch in ipairs(said[SAID.patches]) do
    touch(patch[1])
    after[patch[1]] = patched(after[patch[1]] or properties_of(before[patch[1]]) or {}, patch[2])
  end
  for _, name in ipairs(said[SAID.removes]) do
    touch(name)
    after[name] = false
  end
  return names, before, after, there, is_damaged
end

function operation.read_room_state(after, limit, now_ms)
  if not stand(now_ms) then
    return {'no_room'}
  end
  local changes, upto = redis.call('ZRANGEBYSCORE', CHANGES, '(' .. after, '+inf', 'WITHSCORES', 'LIMIT', 0, limit), head[ROOM.position]
  local names, last = {}, #changes == 2 * tonumber(limit) and changes[#changes]
  for place = 1, #changes, 2 do
    if changes[place + 1] ~= last then
      names[#names + 1] = changes[place]
    end
  end
  if last then
    upto = tonumber(last)
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', CHANGES, last, last)) do
      names[#names + 1] = name
    end
  end
  local list, fields = {}, {}
  for place, name in ipairs(names) do
    fields[place] = 'r' .. name
  end
  local kept = kept_in(fields)
  for place, name in ipairs(names) do
    local packed = packed_in(fields[place], kept[place])
    if packed then
      list[#list + 1], list[#list + 2] = name, packed
    end
  end
  return {'state', head[ROOM.epoch], head[ROOM.position], upto, head[ROOM.horizon], list}
end
