-- A room as a whole: what is read of it (reading.py), and its end.

-- The entries that can be read behind `after`, up to `upto`.
local function read_entries(after, upto)
  local list, fields = {}, log_fields(after + 1, upto)
  local kept = kept_in(fields)
  for position = after + 1, upto do
    local entry = value_in(fields[position - after], kept[position - after])
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

function operation.sweep_room(now_ms)
  now_ms = tonumber(now_ms)
  if not stand(now_ms) then
    redis.call('DEL', unpack(KEYS))
    return {'swept', 0, 0}
  elseif head[ROOM.members] > 0 then
    return {'swept', 0, head[ROOM.members]}
  elseif head[ROOM.empty_ms] - now_ms > CLOCK_SET_MS then
    local keep_ms = head[ROOM.until_ms] - head[ROOM.empty_ms]
    stay(keep_ms, now_ms)
    save_head()
    expire(keep_ms + CLOCK_SET_MS)
  end
  return {'swept', head[ROOM.until_ms], 0}
end

return {operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 12))), damaged}
