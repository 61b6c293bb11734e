-- The operations on a room: the twin of rules.py and reading.py. It follows common.lua.
--
-- KEYS[1]  a hash: `h` the head (ROOM), `d` departures and idempotency keys, `s` the snapshot, `q<member>` a seat (SEAT), `m<member>` a
--          presence, `l<position>` an entry of the log, `r<id>` a record or its removal
-- KEYS[2]  records and removals by the position of their last change
-- KEYS[3]  removals by position
-- KEYS[4]  members by turn
-- KEYS[5]  updates behind the snapshot by position
-- ARGV  1 operation  2 the caller's node  3... the arguments of the function of `operation` that has its name
-- An answer begins with its kind, which replies.py makes a result of. Behind it come the fields that cannot be read.
local DATA, CHANGES, REMOVED, MEMBERS, UPDATES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local room = string.sub(DATA, ID_FROM + TAG_LENGTH, -2)
local damaged = {}
local head

-- Values are lists, packed, each behind the beginning of a digest of it and its field; a later release may add to their ends.
local function seal(field, packed)
  return string.sub(redis.sha1hex(field .. packed), 1, SEAL_LETTERS)
end

local function keep(field, value)
  local packed = cmsgpack.pack(value)
  return seal(field, packed) .. packed
end

-- What is packed in a field; nil when there is nothing or it cannot be read, and whether it is there.
local function read_packed(field)
  local kept = redis.call('HGET', DATA, field)
  if not kept then
    return nil, false
  end
  local packed = string.sub(kept, SEAL_LETTERS + 1)
  if string.sub(kept, 1, SEAL_LETTERS) ~= seal(field, packed) then
    damaged[#damaged + 1] = field
    return nil, true
  end
  return packed, true
end

local function read(field)
  local packed, is_there = read_packed(field)
  if not packed then
    return nil, is_there
  end
  local is_read, value = pcall(cmsgpack.unpack, packed)
  if is_read and type(value) == 'table' then
    return value, true
  end
  damaged[#damaged + 1] = field
  return nil, true
end

-- The head -------------------------------------------------------------------------------------------------------------

local function read_head()
  head = read('h')
  if head and #head < ROOM_COUNT then
    head = nil
  end
  return head
end

-- Reads the head of a room that is there and not over.
local function stand(now_ms)
  read_head()
  if head and head[ROOM.members] == 0 and head[ROOM.until_ms] <= tonumber(now_ms) then
    head = nil
  end
  return head
end

local function make(epoch)
  redis.call('DEL', unpack(KEYS))
  head = {epoch, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, {}, 0, 0}
end

local function save_head()
  redis.call('HSET', DATA, 'h', keep('h', head))
end

local function expire(left_ms)
  for _, each in ipairs(KEYS) do
    redis.call('PEXPIRE', each, string.format('%.0f', left_ms))
  end
end

-- Begins the time for which the room is kept without members.
local function stay(keep_ms, now_ms)
  head[ROOM.empty_ms], head[ROOM.until_ms] = now_ms, now_ms + keep_ms
end

local function bytes_all()
  return head[ROOM.bytes] + head[ROOM.snapshot_bytes] + head[ROOM.updates_bytes]
end

local function count_at(node, change)
  local number = (head[ROOM.nodes][node] or 0) + change
  head[ROOM.nodes][node] = number > 0 and number or nil
end

local function wake()
  for node in pairs(head[ROOM.nodes]) do
    wake_node(node, WAKE_ROOM .. room)
  end
end

-- Departures, as turn and member by turns, and keys, as key and position by turns; nil when they cannot be read.
local function read_kept()
  local kept, is_there = read('d')
  return kept or not is_there and {{}, {}} or nil
end

-- As `read_kept`; when they cannot be read, a node that knows an earlier turn reads all members.
local function begin_kept()
  local kept = read_kept()
  if not kept then
    kept, head[ROOM.turn_floor] = {{}, {}}, head[ROOM.turn]
  end
  return kept
end

-- Members --------------------------------------------------------------------------------------------------------------

local function turn_of(member)
  return tonumber(redis.call('ZSCORE', MEMBERS, member) or nil)
end

-- Counts the members at each node by their seats; what cannot be read is at none.
local function count_nodes()
  head[ROOM.nodes] = {}
  for _, member in ipairs(redis.call('ZRANGE', MEMBERS, 0, -1)) do
    local seat = read('q' .. member)
    if seat then
      count_at(seat[SEAT.node], 1)
    end
  end
end

local function answer_joined(seat, known_epoch, received)
  received = tonumber(received)
  local is_kept = head[ROOM.epoch] == known_epoch and head[ROOM.floor] <= received and received <= head[ROOM.position]
  local is_wiped = not is_kept or received < head[ROOM.horizon]
  return {'joined', head[ROOM.epoch], head[ROOM.position], head[ROOM.floor], head[ROOM.horizon], head[ROOM.snapshot], head[ROOM.turn],
    head[ROOM.members], seat[SEAT.seq] + 1, is_kept and 1 or 0, is_wiped and 1 or 0, seat[SEAT.refused]}
end

-- Says what others see of a member; returns the words to be kept with the head, and the turn, which is nil when nothing is new.
local function say(member, presence)
  local known = read('m' .. member)
  if known and known[2] == presence then
    return {}, nil
  end
  local turn = head[ROOM.turn] + 1
  head[ROOM.turn] = turn
  -- One that was damaged is told as new, so each node takes it whole.
  return {'m' .. member, keep('m' .. member, {known and known[1] or turn, presence, turn})}, turn
end

-- Keeps `words` and the head in one command, and then enters the turn. Cut short, a repetition enters it.
local function save_said(member, words, turn)
  words[#words + 1], words[#words + 2] = 'h', keep('h', head)
  redis.call('HSET', DATA, unpack(words))
  if turn then
    redis.call('ZADD', MEMBERS, turn, member)
  end
end

function operation.join_room(member, epoch, nonce, new_epoch, known_epoch, received, is_said, presence, members_max, now_ms)
  epoch = tonumber(epoch)
  stand(now_ms)
  local seat = head and read('q' .. member)
  local turn = head and turn_of(member)
  if seat then
    if seat[SEAT.nonce] == nonce then
      local known = read('m' .. member)
      if known and known[3] ~= turn then
        redis.call('ZADD', MEMBERS, known[3], member) -- a script was cut short
      end
      return answer_joined(seat, known_epoch, received)
    elseif seat[SEAT.epoch] > epoch or seat[SEAT.epoch] == epoch and seat[SEAT.node] ~= caller then
      return {'fenced', seat[SEAT.epoch]}
    end
  end
  if not turn and (head and head[ROOM.members] or 0) >= tonumber(members_max) then
    return {'refused', 'room_full'}
  end
  if not head then
    make(new_epoch)
  end
  if not turn then
    if head[ROOM.until_ms] > 0 then
      expire(FOREVER_MS)
    end
    head[ROOM.members], head[ROOM.empty_ms], head[ROOM.until_ms] = head[ROOM.members] + 1, 0, 0
  end
  if not seat and turn then
    redis.call('HSET', DATA, 'q' .. member, keep('q' .. member, {caller, epoch, nonce, 0, 0, {}}))
    count_nodes() -- its seat was damaged, and nothing tells at which node it was
  elseif not seat then
    count_at(caller, 1)
  elseif seat[SEAT.node] ~= caller then
    count_at(seat[SEAT.node], -1)
    count_at(caller, 1)
  end
  local place = {caller, epoch, nonce, seat and seat[SEAT.seq] or 0, seat and seat[SEAT.position] or 0, seat and seat[SEAT.refused] or {}}
  local words, new = {}, nil
  if not turn then
    new = head[ROOM.turn] + 1
    head[ROOM.turn] = new
    words = {'m' .. member, keep('m' .. member, {new, presence, new})}
  elseif is_said == '1' then
    words, new = say(member, presence)
  end
  words[#words + 1], words[#words + 2] = 'q' .. member, keep('q' .. member, place)
  save_said(member, words, new)
  if new then
    wake()
  end
  return answer_joined(place, known_epoch, received)
end

-- Takes the seats of `members`. Each step that is cut short is done by a repetition: what is counted is known by its departure.
local function drop(members, keep_ms, now_ms)
  local gone = {}
  for _, member in ipairs(members) do
    if turn_of(member) then
      gone[#gone + 1] = member
    end
  end
  if #gone == 0 then
    return
  end
  local kept, is_unknown = begin_kept(), false
  local departed, at = kept[1], {}
  for place = 1, #departed, 2 do
    at[departed[place + 1]] = departed[place]
  end
  for _, member in ipairs(gone) do
    if (at[member] or 0) <= turn_of(member) then
      local seat = read('q' .. member)
      if seat then
        count_at(seat[SEAT.node], -1)
      else
        is_unknown = true
      end
      head[ROOM.turn], head[ROOM.members] = head[ROOM.turn] + 1, math.max(0, head[ROOM.members] - 1)
      departed[#departed + 1], departed[#departed + 2] = head[ROOM.turn], member
    end
    redis.call('HDEL', DATA, 'q' .. member, 'm' .. member)
  end
  while #departed > 2 * DEPARTED_MAX do
    head[ROOM.turn_floor] = table.remove(departed, 1)
    table.remove(departed, 1)
  end
  if is_unknown then
    count_nodes()
  end
  if head[ROOM.members] == 0 then
    stay(tonumber(keep_ms), tonumber(now_ms))
  end
  redis.call('HSET', DATA, 'd', keep('d', kept), 'h', keep('h', head))
  redis.call('ZREM', MEMBERS, unpack(gone))
  if head[ROOM.members] == 0 then
    expire(keep_ms + CLOCK_SET_MS)
  end
  wake()
end

function operation.leave_room(member, epoch, keep_ms, now_ms)
  epoch = tonumber(epoch)
  local seat = read('q' .. member)
  if seat and (seat[SEAT.epoch] > epoch or seat[SEAT.epoch] == epoch and seat[SEAT.node] ~= caller) then
    return {'fenced', seat[SEAT.epoch]}
  end
  if read_head() then
    drop({member}, keep_ms, now_ms)
  end
  return {'done'}
end

function operation.drop_members(session, keep_ms, now_ms)
  if read_head() then
    drop({session, session .. '/worker'}, keep_ms, now_ms)
  end
  return {'done'}
end

-- The seat of a member, if it is that of the caller's connection; else nil and the answer.
local function seated(member, epoch)
  epoch = tonumber(epoch)
  local seat = read_head() and read('q' .. member)
  if not seat then
    return nil, {'not_member'}
  elseif seat[SEAT.epoch] < epoch then
    return nil, {'behind', seat[SEAT.epoch]}
  elseif seat[SEAT.epoch] > epoch or seat[SEAT.node] ~= caller then
    return nil, {'fenced', seat[SEAT.epoch]}
  end
  return seat
end

function operation.set_presence(member, epoch, presence)
  local seat, refusal = seated(member, epoch)
  if not seat then
    return refusal
  end
  local words, turn = say(member, presence)
  if not turn then
    local last = read('m' .. member)[3]
    if last ~= turn_of(member) then
      redis.call('ZADD', MEMBERS, last, member) -- a script was cut short
    end
    return {'presence', last}
  end
  save_said(member, words, turn)
  wake()
  return {'presence', turn}
end

-- Publications ---------------------------------------------------------------------------------------------------------

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
  for _, word in ipairs(properties) do
    size = size + #word
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

-- Counts the bytes of the log anew, after damage.
local function count_log()
  local size = 0
  for position = head[ROOM.floor] + 1, head[ROOM.position] do
    local entry = read('l' .. position)
    size = size + (entry and entry[3] or 0)
  end
  head[ROOM.log_bytes] = size
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

-- Drops the oldest of the log, but never its last entry, and the oldest removals. The head goes before what it no longer names.
local function trim(bounds)
  local drops, forgotten = {}, {}
  local floor_before, tombstones_before = head[ROOM.floor], head[ROOM.tombstones]
  while head[ROOM.floor] < head[ROOM.position] - 1 and
    (head[ROOM.position] - head[ROOM.floor] > bounds[BOUND.history_messages_max]
      or head[ROOM.log_bytes] > bounds[BOUND.history_bytes_max]) do
    local floor = head[ROOM.floor] + 1
    local entry = read('l' .. floor)
    head[ROOM.floor] = floor
    if entry then
      head[ROOM.log_bytes] = math.max(0, head[ROOM.log_bytes] - entry[3])
    else
      count_log()
    end
    if not entry or entry[4] == 0 or floor <= head[ROOM.snapshot] then
      drops[#drops + 1] = 'l' .. floor
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

-- Takes a publication, with the seat of its member or the key of its service; or returns why not. The log, the records, the seat and the head change in
-- one command. What is entered before it by a script that is cut short is entered again, or passed over by its reader.
local function store(member, said, size, packed, bounds, now_ms, seat, kept)
  local names, before, after, there, is_damaged = fold(said)
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
  head[ROOM.position], head[ROOM.records], head[ROOM.bytes], head[ROOM.tombstones] = position, records, bytes, tombstones
  local words = {}
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
  head[ROOM.log_bytes] = head[ROOM.log_bytes] + size
  if seat then
    seat[SEAT.seq], seat[SEAT.position] = said[SAID.seq], position
    words[#words + 1], words[#words + 2] = 'q' .. member, keep('q' .. member, seat)
  end
  if kept then
    words[#words + 1], words[#words + 2] = 'd', keep('d', kept)
  end
  local entry = 'l' .. position
  words[#words + 1], words[#words + 2] = entry, keep(entry, {member, now_ms, size, is_update and 1 or 0, packed})
  words[#words + 1], words[#words + 2] = 'h', keep('h', head)
  redis.call('HSET', DATA, unpack(words))
  if is_damaged then
    count_records()
    save_head()
  end
  trim(bounds)
end

-- ARGV 7...: of each publication why its node refuses it, or nothing; its size; what it does to records; itself
function operation.publish(member, epoch, bounds, now_ms)
  local seat, refusal = seated(member, epoch)
  if not seat then
    return refusal
  end
  bounds, now_ms = cmsgpack.unpack(bounds), tonumber(now_ms)
  local expected, is_stored, asked, told = 0, false, {}, {}
  for place = 7, #ARGV, 4 do
    local said = cmsgpack.unpack(ARGV[place + 2])
    local seq, fault = said[SAID.seq], ARGV[place]
    asked[seq] = true
    if expected == 0 and seq > seat[SEAT.seq] + 1 then
      expected = seat[SEAT.seq] + 1
    elseif expected == 0 and seq > seat[SEAT.seq] then
      if fault == '' then
        fault = store(member, said, tonumber(ARGV[place + 1]), ARGV[place + 3], bounds, now_ms, seat) or ''
      end
      if fault == '' then
        is_stored = true
      else
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
    wake()
  end
  for place = 1, #seat[SEAT.refused], 2 do
    if asked[seat[SEAT.refused][place]] then
      told[#told + 1], told[#told + 2] = seat[SEAT.refused][place], seat[SEAT.refused][place + 1]
    end
  end
  return {'published', seat[SEAT.seq], seat[SEAT.position], told, expected}
end

function operation.post(key, new_epoch, bounds, now_ms, size, said, packed)
  bounds, now_ms = cmsgpack.unpack(bounds), tonumber(now_ms)
  if not stand(now_ms) then
    make(new_epoch)
  end
  local kept = begin_kept()
  local keys = kept[2]
  for place = 1, key ~= '' and #keys or 0, 2 do
    if keys[place] == key then
      return {'posted', keys[place + 1]}
    end
  end
  if head[ROOM.members] == 0 then
    stay(bounds[BOUND.keep_ms], now_ms)
  end
  if key ~= '' then
    keys[#keys + 1], keys[#keys + 2] = key, head[ROOM.position] + 1
    while #keys > 2 * KEYS_MAX do
      table.remove(keys, 1)
      table.remove(keys, 1)
    end
  end
  local fault = store('', cmsgpack.unpack(said), tonumber(size), packed, bounds, now_ms, nil, key ~= '' and kept)
  if fault then
    return {'refused', fault}
  end
  if head[ROOM.members] == 0 then
    expire(bounds[BOUND.keep_ms] + CLOCK_SET_MS)
  end
  wake()
  return {'posted', head[ROOM.position]}
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
  local grown = #body + size - head[ROOM.snapshot_bytes] - head[ROOM.updates_bytes]
  if grown > 0 and bytes_all() + grown > bounds[BOUND.room_bytes_max] then
    return {'refused', 'room_full'}
  end
  head[ROOM.snapshot], head[ROOM.snapshot_bytes] = position, #body
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

-- Reading --------------------------------------------------------------------------------------------------------------

local function add_entry(list, position, entry)
  list[#list + 1], list[#list + 2], list[#list + 3], list[#list + 4] = position, entry[1], entry[2], entry[5]
end

-- The entries that can be read behind `after`, up to `upto`.
local function read_entries(after, upto)
  local list = {}
  for position = after + 1, upto do
    local entry = read('l' .. position)
    if entry then
      add_entry(list, position, entry)
    end
  end
  return list
end

-- The first members whose last turn is behind `since`: name, presence, and whether they have joined since.
local function read_members(since, limit)
  local list = {}
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', MEMBERS, '(' .. since, '+inf', 'LIMIT', 0, limit)) do
    local known = read('m' .. member)
    local is_new = not known or known[1] > tonumber(since)
    list[#list + 1], list[#list + 2], list[#list + 3] = member, known and known[2] or '', is_new and 1 or 0
  end
  return list
end

function operation.look_room(after, turn, limit, now_ms)
  if not stand(now_ms) then
    return {'no_room'}
  end
  after, turn = math.max(tonumber(after), head[ROOM.floor]), tonumber(turn)
  local upto = math.min(head[ROOM.position], after + tonumber(limit))
  local kept = read_kept()
  local is_whole = not kept or turn == 0 or turn < head[ROOM.turn_floor] or turn > head[ROOM.turn]
  local departed, seen = {}, {}
  for place = 1, is_whole and 0 or #kept[1], 2 do
    local member = kept[1][place + 1]
    -- One that has left and come back is a member.
    if kept[1][place] > turn and not seen[member] and not turn_of(member) then
      departed[#departed + 1], seen[member] = member, true
    end
  end
  return {'looked', head[ROOM.epoch], head[ROOM.position], head[ROOM.floor], read_entries(after, upto), upto, head[ROOM.turn],
    is_whole and 1 or 0, read_members(is_whole and 0 or turn, head[ROOM.members]), departed, head[ROOM.members]}
end

function operation.read_room(limit, now_ms)
  if not stand(now_ms) then
    return {'no_room'}
  end
  local nodes = {}
  for node in pairs(head[ROOM.nodes]) do
    nodes[#nodes + 1] = node
  end
  table.sort(nodes)
  return {'read', head[ROOM.epoch], head[ROOM.position], head[ROOM.floor], head[ROOM.horizon], head[ROOM.snapshot], head[ROOM.records],
    bytes_all(), head[ROOM.members], read_members(0, math.min(tonumber(limit), head[ROOM.members])), nodes}
end

function operation.read_room_history(before, limit, now_ms)
  if not stand(now_ms) then
    return {'no_room'}
  end
  local last = before == '0' and head[ROOM.position] or math.min(tonumber(before) - 1, head[ROOM.position])
  local first = math.max(head[ROOM.floor], last - tonumber(limit))
  return {'history', read_entries(first, last), first > head[ROOM.floor] and first + 1 or 0}
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
  local list = {}
  for _, name in ipairs(names) do
    local packed = read_packed('r' .. name)
    if packed then
      list[#list + 1], list[#list + 2] = name, packed
    end
  end
  return {'state', head[ROOM.epoch], head[ROOM.position], upto, head[ROOM.horizon], list}
end

function operation.read_room_updates(after, limit, now_ms)
  if not stand(now_ms) then
    return {'no_room'}
  end
  after = tonumber(after)
  local body = ''
  if after < head[ROOM.snapshot] then
    body = read_packed('s') or ''
  end
  local updates, last = read_updates(math.max(after, head[ROOM.snapshot]), limit)
  local list = {}
  for _, update in ipairs(updates) do
    add_entry(list, update[1], update[2])
  end
  return {'updates', head[ROOM.epoch], head[ROOM.position], head[ROOM.snapshot], body, list, last > 0 and last or head[ROOM.position]}
end

function operation.sweep_room(now_ms)
  now_ms = tonumber(now_ms)
  if not stand(now_ms) then
    redis.call('DEL', unpack(KEYS))
    return {'swept', 0}
  elseif head[ROOM.members] > 0 then
    return {'swept', 0}
  elseif head[ROOM.empty_ms] - now_ms > CLOCK_SET_MS then
    local keep_ms = head[ROOM.until_ms] - head[ROOM.empty_ms]
    stay(keep_ms, now_ms)
    save_head()
    expire(keep_ms + CLOCK_SET_MS)
  end
  return {'swept', head[ROOM.until_ms]}
end

return {operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 12))), damaged}
