-- The log of a room: what is published, and what goes for it (rules.py).

-- Counts the bytes of the log anew, after damage.
local function count_log()
  local size = 0
  for position = head[ROOM.floor] + 1, head[ROOM.position] do
    local entry = read('l' .. position)
    size = size + (entry and entry[3] or 0)
  end
  head[ROOM.log_bytes] = size
end

-- Drops the oldest of the log, but never its last entry, and the oldest removals. The head goes before what it no longer names.
local function trim(bounds)
  local drops, forgotten = {}, {}
  local floor_before, tombstones_before = head[ROOM.floor], head[ROOM.tombstones]
  -- What goes because there are too many is read at once.
  local fields = log_fields(floor_before + 1, math.min(head[ROOM.position] - bounds[BOUND.history_messages_max], head[ROOM.position] - 1))
  local kept = kept_in(fields)
  while head[ROOM.floor] < head[ROOM.position] - 1 and
    (head[ROOM.position] - head[ROOM.floor] > bounds[BOUND.history_messages_max]
      or head[ROOM.log_bytes] > bounds[BOUND.history_bytes_max]) do
    local floor = head[ROOM.floor] + 1
    local field, place = 'l' .. floor, floor - floor_before
    local entry
    if place <= #fields then
      entry = value_in(field, kept[place])
    else
      entry = read(field)
    end
    head[ROOM.floor] = floor
    if entry then
      head[ROOM.log_bytes] = math.max(0, head[ROOM.log_bytes] - entry[3])
    else
      count_log()
    end
    if not entry or entry[4] == 0 or floor <= head[ROOM.snapshot] then
      drops[#drops + 1] = field
    end
  end
  while head[ROOM.tombstones] > bounds[BOUND.tombstones_max] do
    local name, position = first_tombstone()
    if not name then
      head[ROOM.tombstones] = 0
    else
      head[ROOM.tombstones], head[ROOM.horizon] = head[ROOM.tombstones] - 1, math.max(head[ROOM.horizon], position)
      redis.call('ZREM', REMOVED, name)
      forgotten[#forgotten + 1], drops[#drops + 1] = name, 'r' .. name
    end
  end
  -- The log shrinks also where nothing is dropped: an update outlives it.
  if head[ROOM.floor] > floor_before or head[ROOM.tombstones] < tombstones_before then
    save_head()
    for first = 1, #drops, WORDS_MAX do
      redis.call('HDEL', DATA, unpack(drops, first, math.min(#drops, first + WORDS_MAX - 1)))
    end
    for first = 1, #forgotten, WORDS_MAX do
      redis.call('ZREM', CHANGES, unpack(forgotten, first, math.min(#forgotten, first + WORDS_MAX - 1)))
    end
  end
end

-- What has been taken and is not written.
local words = {}

-- Writes what has been taken. The log, the records, the seat of a member or the key of a service, and the head change in one command. What is entered
-- before it by a script that is cut short is entered again, or passed over by its reader.
local function write(member, seat, kept)
  if #words == 0 then
    return
  end
  if seat then
    words[#words + 1], words[#words + 2] = 'q' .. member, keep('q' .. member, seat)
  end
  if kept then
    words[#words + 1], words[#words + 2] = 'd', keep('d', kept)
  end
  words[#words + 1], words[#words + 2] = 'h', keep('h', head)
  redis.call('HSET', DATA, unpack(words))
  words = {}
end

-- Enters a publication in the log, with the seat of its member; words hold it until the next `write`.
local function enter(member, seq, size, is_update, packed, now_ms, seat)
  local position = head[ROOM.position] + 1
  head[ROOM.position], head[ROOM.log_bytes] = position, head[ROOM.log_bytes] + size
  if seat then
    seat[SEAT.seq], seat[SEAT.position] = seq, position
  end
  local entry = 'l' .. position
  words[#words + 1], words[#words + 2] = entry, keep(entry, {member, now_ms, size, is_update and 1 or 0, packed})
end

-- Removals above a bound that has been lowered go before the next publication, which may bring one of those records back.
local function may_wait(bounds)
  return #words < WORDS_MAX and head[ROOM.tombstones] <= bounds[BOUND.tombstones_max]
end

-- Takes a publication that is for the log alone.
local function store_plain(member, seq, size, packed, bounds, now_ms, seat)
  enter(member, seq, size, false, packed, now_ms, seat)
  if not may_wait(bounds) then
    write(member, seat)
    trim(bounds)
  end
end

-- Takes a publication, with the seat of its member or the key of its service; or returns why not. One that changes a record is written at once, because
-- the next one may change it again, and so is an update; others wait for the next `write`, before which nothing else may be said of the seat.
local function store(member, said, size, packed, bounds, now_ms, seat, kept)
  local names, before, after, there, is_damaged = fold(said)
  if #names > 0 then
    write(member, seat) -- all that may change records is as much as one command holds
  end
  local records, bytes, tombstones = head[ROOM.records], head[ROOM.bytes], head[ROOM.tombstones]
  for _, name in ipairs(names) do
    local record, known = after[name], before[name]
    if record then
      if size_of(name, record) > bounds[BOUND.record_bytes_max] then
        return 'too_big'
      end
      records, bytes = records + 1, bytes + size_of(name, record)
    elseif known then
      tombstones = tombstones + 1
    end
    if known and known[2] == 1 then
      records, bytes = records - 1, bytes - known[3]
    elseif known then
      tombstones = tombstones - 1
    end
  end
  local is_update = said[SAID.update] and true or false
  local grown = bytes - head[ROOM.bytes] + (is_update and size or 0)
  if records > math.max(bounds[BOUND.records_max], head[ROOM.records])
    or grown > 0 and bytes_all() + grown > bounds[BOUND.room_bytes_max]
    or is_update and head[ROOM.updates] >= UPDATES_MAX then
    return 'room_full'
  end
  local position = head[ROOM.position] + 1
  head[ROOM.records], head[ROOM.bytes], head[ROOM.tombstones] = records, bytes, tombstones
  for _, name in ipairs(names) do
    local record = after[name]
    if record or there[name] then
      local kept = {position, record and 1 or 0, record and size_of(name, record) or 0}
      for place, word in ipairs(record or {}) do
        kept[place + 3] = word
      end
      words[#words + 1], words[#words + 2] = 'r' .. name, keep('r' .. name, kept)
      redis.call('ZADD', CHANGES, position, name)
      if record then
        redis.call('ZREM', REMOVED, name)
      else
        redis.call('ZADD', REMOVED, position, name)
      end
    end
  end
  if is_update then
    head[ROOM.updates], head[ROOM.updates_bytes] = head[ROOM.updates] + 1, head[ROOM.updates_bytes] + size
    redis.call('ZADD', UPDATES, position, position)
  end
  enter(member, said[SAID.seq], size, is_update, packed, now_ms, seat)
  if #names == 0 and not is_update and may_wait(bounds) then
    return
  end
  write(member, seat, kept)
  if is_damaged then
    count_records()
    save_head()
  end
  trim(bounds)
end

-- ARGV 7...: of each publication why its node refuses it, or nothing; its size; what it does to records, or its seq alone when it
-- does nothing to them; itself
function operation.publish(member, epoch, bounds, now_ms)
  local seat, refusal = seated(member, epoch)
  if not seat then
    return refusal
  end
  bounds, now_ms = cmsgpack.unpack(bounds), tonumber(now_ms)
  local expected, is_stored, asked, told = 0, false, {}, {}
  for place = 7, #ARGV, 4 do
    local plain, fault = tonumber(ARGV[place + 2]), ARGV[place]
    local said = not plain and cmsgpack.unpack(ARGV[place + 2])
    local seq = plain or said[SAID.seq]
    asked[seq] = true
    if expected == 0 and seq > seat[SEAT.seq] + 1 then
      expected = seat[SEAT.seq] + 1
    elseif expected == 0 and seq > seat[SEAT.seq] then
      if fault == '' and plain then
        store_plain(member, plain, tonumber(ARGV[place + 1]), ARGV[place + 3], bounds, now_ms, seat)
      elseif fault == '' then
        fault = store(member, said, tonumber(ARGV[place + 1]), ARGV[place + 3], bounds, now_ms, seat) or ''
      end
      if fault == '' then
        is_stored = true
      else
        write(member, seat)
        local refused = seat[SEAT.refused]
        refused[#refused + 1], refused[#refused + 2] = seq, fault
        while #refused > 2 * REFUSALS_MAX do
          table.remove(refused, 1)
          table.remove(refused, 1)
        end
        seat[SEAT.seq] = seq
        redis.call('HSET', DATA, 'q' .. member, keep('q' .. member, seat))
      end
    end
  end
  if is_stored then
    write(member, seat)
    trim(bounds)
    wake()
  end
  for place = 1, #seat[SEAT.refused], 2 do
    if asked[seat[SEAT.refused][place]] then
      told[#told + 1], told[#told + 2] = seat[SEAT.refused][place], seat[SEAT.refused][place + 1]
    end
  end
  return {'published', seat[SEAT.seq], seat[SEAT.position], told, expected}
end

function operation.post(member, key, new_epoch, bounds, now_ms, size, said, packed, content, makes)
  bounds, now_ms = cmsgpack.unpack(bounds), tonumber(now_ms)
  if not stand(now_ms) then
    if makes ~= '1' then
      return {'no_room'}
    end
    make(new_epoch)
  end
  local kept = begin_kept()
  local keys = kept[2]
  for place = 1, key ~= '' and #keys or 0, 3 do
    if keys[place] == key then
      return keys[place + 2] == content and {'posted', keys[place + 1], 1} or {'refused', 'key_taken'}
    end
  end
  if key ~= '' then
    keys[#keys + 1], keys[#keys + 2], keys[#keys + 3] = key, head[ROOM.position] + 1, content
    while #keys > 3 * KEYS_MAX do
      for _ = 1, 3 do
        table.remove(keys, 1)
      end
    end
  end
  if head[ROOM.members] == 0 then
    head[ROOM.empty_ms], head[ROOM.until_ms] = now_ms, now_ms + bounds[BOUND.keep_ms]
  end
  local fault = store(member, cmsgpack.unpack(said), tonumber(size), packed, bounds, now_ms, nil, key ~= '' and kept)
  if fault then
    return {'refused', fault}
  end
  write(member, nil, key ~= '' and kept)
  trim(bounds)
  if head[ROOM.members] == 0 then
    expire(bounds[BOUND.keep_ms] + CLOCK_SET_MS)
  end
  wake()
  return {'posted', head[ROOM.position], 0}
end
