-- The members of a room: seats, presences and turns (rules.py).

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

function operation.set_presence(member, epoch, presence, after)
  local seat, refusal = seated(member, epoch)
  if not seat then
    return refusal
  end
  local known = read('m' .. member)
  after = tonumber(after)
  if after > 0 and known and known[3] > after and known[2] ~= presence then
    return {'presence_old', known[3]}
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
