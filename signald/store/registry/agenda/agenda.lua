-- The registry: the agenda. The keys are described in nodes.lua.

-- An item is kept as its words: at_ms, ticket, failures, since_ms, again_ms and nonce (records.py). ORDER has it once for each way in
-- which it is looked for, behind its kind: `n` by name, `d` by time and `l` by time under a lease, `t` by the nonce of its lease, `f` by
-- since when it fails, `o` of a room by its owner. A place in ORDER that the item does not have is of an item that was damaged, and goes when it is met.
local AT, TICKET, FAILURES, SINCE, AGAIN, NONCE = 1, 2, 3, 4, 5, 6

-- Returns nil for none; an unreadable item is due at once, and the second result is true.
local function agenda_item(kind, name)
  local kept = redis.call('HGET', AGENDA, kind .. name)
  if not kept then
    return nil
  end
  local at, ticket, failures, since, again, nonce = string.match(kept, '^(%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  if not at then
    return {0, 0, 0, 0, 0, ''}, true
  end
  return {tonumber(at), tonumber(ticket), tonumber(failures), tonumber(since), tonumber(again), nonce}
end

local function in_time(region, at, name)
  return region .. '\0' .. string.format('%016.0f', at) .. '\0' .. name
end

-- What a place in time says: when, and the name.
local function of_time(place)
  return tonumber(string.sub(place, 4, 19)), string.sub(place, 21)
end

local function places_of(kind, name, kept)
  local found = {kind .. 'n\0' .. name, in_time(kind .. (kept[TICKET] > 0 and 'l' or 'd'), kept[AT], name)}
  if kept[TICKET] > 0 then
    found[#found + 1] = kind .. 't\0' .. kept[NONCE] .. '\0' .. name
  end
  if kept[SINCE] > 0 then
    found[#found + 1] = in_time(kind .. 'f', kept[SINCE], name)
  end
  return found
end

-- Puts `new` (nil: nothing) in the place of what is kept of a name (nil: nothing).
local function put_agenda_item(kind, name, kept, new)
  for _, place in ipairs(kept and places_of(kind, name, kept) or {}) do
    redis.call('ZREM', ORDER, place)
  end
  if not new then
    redis.call('HDEL', AGENDA, kind .. name)
    return
  end
  for _, place in ipairs(places_of(kind, name, new)) do
    redis.call('ZADD', ORDER, 0, place)
  end
  redis.call('HSET', AGENDA, kind .. name,
    string.format('%.0f %.0f %.0f %.0f %.0f ', new[AT], new[TICKET], new[FAILURES], new[SINCE], new[AGAIN]) .. new[NONCE])
end

local function ask_for(kind, name, kept, due, hurry)
  if not kept then
    put_agenda_item(kind, name, nil, {due, 0, 0, 0, 0, ''})
  elseif kept[TICKET] > 0 then
    local again = math.max(1, kept[AGAIN] > 0 and math.min(due, kept[AGAIN]) or due)
    put_agenda_item(kind, name, kept, {kept[AT], kept[TICKET], kept[FAILURES], kept[SINCE], again, kept[NONCE]})
  elseif due < kept[AT] and (hurry or kept[FAILURES] == 0) then
    put_agenda_item(kind, name, kept, {due, 0, kept[FAILURES], kept[SINCE], 0, ''})
  end
end

-- How many places there are in a region, up to a time where it is said.
local function count_places(region, last)
  local to = last and in_time(region, last + 1, '') or '(' .. region .. '\1'
  return redis.call('ZLEXCOUNT', ORDER, '[' .. region .. '\0', last and '(' .. to or to)
end

-- ARGV 9...: names
function operation.schedule(kind, due_ms, now_ms, hurry, ahead_max, items_max)
  local due, most = math.min(tonumber(due_ms), tonumber(now_ms) + tonumber(ahead_max)), tonumber(items_max)
  local refused, room = 0, nil
  for i = 9, #ARGV do
    local kept, fits = agenda_item(kind, ARGV[i]), true
    if not kept and most > 0 then
      room = (room or most - count_places(kind .. 'n')) - 1
      fits = room >= 0
    end
    if fits then
      ask_for(kind, ARGV[i], kept, due, hurry == '1')
    else
      refused = refused + 1
    end
  end
  return refused
end

local function room_of_owner(owner, room)
  return ROOMS .. 'o\0' .. owner .. '\0' .. room
end

-- Gives a room its owner; '' for none. It is kept under a kind that no item has.
local function set_room_owner(room, owner)
  local before = redis.call('HGET', AGENDA, 'o' .. room)
  if before then
    redis.call('ZREM', ORDER, room_of_owner(before, room))
  end
  if owner ~= '' then
    redis.call('ZADD', ORDER, 0, room_of_owner(owner, room))
    redis.call('HSET', AGENDA, 'o' .. room, owner)
  else
    redis.call('HDEL', AGENDA, 'o' .. room)
  end
end

local function count_owned(owner)
  return redis.call('ZLEXCOUNT', ORDER, '[' .. room_of_owner(owner, ''), '(' .. ROOMS .. 'o\0' .. owner .. '\1')
end

function operation.own(room, owner, owned_max, rooms_max, ahead_max, due_ms, now_ms)
  local kept, before = agenda_item(ROOMS, room), redis.call('HGET', AGENDA, 'o' .. room) or ''
  if not kept and count_places(ROOMS .. 'n') >= tonumber(rooms_max) then
    return {'refused', 'rooms'}
  end
  if owner ~= '' and owner ~= before and count_owned(owner) >= tonumber(owned_max) then
    return {'refused', 'owner'}
  end
  local due = math.min(tonumber(due_ms), tonumber(now_ms) + tonumber(ahead_max))
  -- What a node has taken, or takes in between, is the old item: it would end that of the new room.
  put_agenda_item(ROOMS, room, kept, {due, 0, 0, 0, 0, ''})
  if owner ~= before then
    set_room_owner(room, owner)
  end
  return {'done'}
end

-- The first places of a region, from a time and up to one (nil: no bound): {at, name} of each that its item has.
local function first_places(kind, region, from, to, limit, found)
  local first = from and '[' .. in_time(region, from, '') or '[' .. region .. '\0'
  local last = to and '(' .. in_time(region, to + 1, '') or '(' .. region .. '\1'
  for _, place in ipairs(redis.call('ZRANGEBYLEX', ORDER, first, last, 'LIMIT', 0, limit)) do
    local at, name = of_time(place)
    local kept, damaged = agenda_item(kind, name)
    local has = damaged
    for _, each in ipairs(kept and not damaged and places_of(kind, name, kept) or {}) do
      has = has or each == place
    end
    if has then
      found[#found + 1] = {at, name, kept, place, damaged}
    else
      redis.call('ZREM', ORDER, place)
    end
  end
end

local function in_order(a, b)
  if a[1] == b[1] then
    return a[2] < b[2]
  end
  return a[1] < b[1]
end

-- What may be taken: what is past by time, then what lies too far ahead, by time as well.
local function due_places(kind, now, ahead_max, limit)
  local past, ahead = {}, {}
  local too_far = now + CLOCK_SET_MS + 1
  first_places(kind, kind .. 'd', nil, now, limit, past)
  first_places(kind, kind .. 'l', nil, now, limit, past)
  first_places(kind, kind .. 'd', too_far + ahead_max, nil, limit, ahead)
  first_places(kind, kind .. 'l', too_far + LEASE_MAX_MS, nil, limit, ahead)
  table.sort(past, in_order)
  table.sort(ahead, in_order)
  for _, each in ipairs(ahead) do
    past[#past + 1] = each
  end
  return past
end

-- → when the next one may be due, then name, ticket, failures, since_ms and whether it was damaged, for each
function operation.take_due(kind, nonce, now_ms, lease_ms, limit, ahead_max)
  local now, most, taken = tonumber(now_ms), tonumber(limit), {}
  local by = kind .. 't\0' .. nonce
  for _, place in ipairs(redis.call('ZRANGEBYLEX', ORDER, '[' .. by .. '\0', '(' .. by .. '\1')) do
    local name = string.sub(place, #by + 2)
    local kept = agenda_item(kind, name)
    if kept and kept[TICKET] > 0 and kept[NONCE] == nonce then
      taken[#taken + 1] = {kept[TICKET], name, kept}
    end
  end
  table.sort(taken, in_order)
  if #taken == 0 and most > 0 then
    local last = tonumber(redis.call('HGET', MISC, 'agenda_ticket') or '') or 0
    local ticket, ends = math.max(last + 1, now), now + math.min(tonumber(lease_ms), LEASE_MAX_MS)
    for i, each in ipairs(due_places(kind, now, tonumber(ahead_max), most)) do
      if i > most then
        break
      end
      local name, kept = each[2], each[3]
      local new = {ends, ticket + i - 1, kept[FAILURES], kept[SINCE], 0, nonce}
      redis.call('ZREM', ORDER, each[4])
      put_agenda_item(kind, name, kept, new)
      taken[i] = {new[TICKET], name, new, each[5]}
      redis.call('HSET', MISC, 'agenda_ticket', string.format('%.0f', new[TICKET]))
    end
    -- The oldest of those that fail is shown: should it be one that does not, it goes.
    first_places(kind, kind .. 'f', nil, nil, 1, {})
  end
  local next_ms = 0
  for _, region in ipairs({kind .. 'd', kind .. 'l'}) do
    local first = redis.call('ZRANGEBYLEX', ORDER, '[' .. region .. '\0', '(' .. region .. '\1', 'LIMIT', 0, 1)[1]
    local at = first and of_time(first) or 0
    next_ms = (next_ms == 0 or at > 0 and at < next_ms) and at or next_ms
  end
  local reply = {next_ms}
  for _, each in ipairs(taken) do
    reply[#reply + 1] = {each[2], each[1], each[3][FAILURES], each[3][SINCE], each[4] and 1 or 0}
  end
  return reply
end

function operation.settle(kind, name, ticket, due_ms, failures, since_ms, now_ms, ahead_max)
  local kept = agenda_item(kind, name)
  local now, asked, fails, since = tonumber(now_ms), tonumber(due_ms), tonumber(failures), tonumber(since_ms)
  if not kept or kept[TICKET] == 0 or kept[TICKET] ~= tonumber(ticket) then
    return {'done'}
  end
  if asked == 0 and kept[AGAIN] == 0 then
    if kind == ROOMS then
      set_room_owner(name, '') -- first: a script that is cut short leaves no owner without its item
    end
    put_agenda_item(kind, name, kept, nil)
    return {'done'}
  end
  if asked == 0 then
    asked, fails = kept[AGAIN], 0
  end
  local due = math.min(asked, now + tonumber(ahead_max))
  if fails == 0 then
    since = 0
    due = kept[AGAIN] > 0 and math.min(due, kept[AGAIN]) or due
  elseif since == 0 then
    since = now
  end
  put_agenda_item(kind, name, kept, {due, 0, fails, since, 0, ''})
  return {'done'}
end

-- → how many there are, are due and fail, and since when the oldest waits
function operation.read_agenda(kind, now_ms)
  local now, oldest = tonumber(now_ms), 0
  for _, region in ipairs({kind .. 'd', kind .. 'l', kind .. 'f'}) do
    local first = redis.call('ZRANGEBYLEX', ORDER, '[' .. region .. '\0', '(' .. region .. '\1', 'LIMIT', 0, 1)[1]
    local at = first and of_time(first) or 0
    if at > 0 and (at <= now or region == kind .. 'f') and (oldest == 0 or at < oldest) then
      oldest = at
    end
  end
  local due = count_places(kind .. 'd', now) + count_places(kind .. 'l', now)
  return {count_places(kind .. 'n'), due, count_places(kind .. 'f'), oldest}
end

-- → name, at_ms, failures, since_ms and whether it is under a lease, for each
function operation.list_agenda(kind, after, limit)
  local found, region = {}, kind .. 'n'
  if tonumber(limit) <= 0 then
    return found
  end
  local from = (after == '' and '[' or '(') .. region .. '\0' .. after
  for _, place in ipairs(redis.call('ZRANGEBYLEX', ORDER, from, '(' .. region .. '\1', 'LIMIT', 0, limit)) do
    local name = string.sub(place, 4)
    local kept = agenda_item(kind, name)
    if kept then
      found[#found + 1] = {name, kept[AT], kept[FAILURES], kept[SINCE], kept[TICKET] > 0 and 1 or 0}
    end
  end
  return found
end
