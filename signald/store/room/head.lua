-- What each operation on a room begins with: its keys, how values are kept, and the head. It follows common.lua. The operations are the twins
-- of those in rules.py and reading.py.
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

-- What is packed in the value `kept` of a field; nil when there is nothing or it cannot be read, and whether it is there.
local function packed_in(field, kept)
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

-- As `read`, of the value `kept` of a field.
local function value_in(field, kept)
  local packed, is_there = packed_in(field, kept)
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

-- What is in a field; nil when there is nothing or it cannot be read, and whether it is there.
local function read(field)
  return value_in(field, redis.call('HGET', DATA, field))
end

-- The values of fields as they are kept, by place, false where there is nothing. One command costs less than one for each.
local function kept_in(fields)
  local list = {}
  for first = 1, #fields, WORDS_MAX do
    local last = math.min(#fields, first + WORDS_MAX - 1)
    for place, kept in ipairs(redis.call('HMGET', DATA, unpack(fields, first, last))) do
      list[first + place - 1] = kept
    end
  end
  return list
end

-- The fields of the log from `first` to `last`.
local function log_fields(first, last)
  local fields = {}
  for position = first, last do
    fields[#fields + 1] = 'l' .. position
  end
  return fields
end

local function read_head()
  head = read('h')
  if head and #head < ROOM_COUNT then
    head = nil
  end
  return head
end

local function is_over(now_ms)
  return head[ROOM.members] == 0 and head[ROOM.until_ms] <= tonumber(now_ms)
end

-- Reads the head of a room that is there and not over.
local function stand(now_ms)
  read_head()
  if head and is_over(now_ms) then
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

-- Begins the time for which the room is kept without members: none when nothing was ever published in it. Returns that time.
local function stay(keep_ms, now_ms)
  keep_ms = head[ROOM.position] > 0 and keep_ms or 0
  head[ROOM.empty_ms], head[ROOM.until_ms] = now_ms, now_ms + keep_ms
  return keep_ms
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

-- Departures, as turn and member by turns, and keys, as key, position and content by turns; nil when they cannot be read.
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
