-- What of a room is sealed, and its exchange for the same under another key: see redis_reseal.py. It follows head.lua and members.lua.
--
-- A value is exchanged where it still is what the caller has read, so nothing that is written meanwhile is lost.

-- The places of what is sealed in the list that is kept in a field.
local function places_in(field, kept)
  local kind, places = string.sub(field, 1, 1), {}
  if kind == 'm' then
    places[1] = 2
  elseif kind == 'l' then
    places[1] = 5
  elseif kind == 'r' then
    for place = 5, #kept, 2 do
      places[#places + 1] = place
    end
  end
  return places
end

-- → {where the next ones begin, '' for nowhere; field, value, what else its place is called by, ...}
function operation.sealed_room_values(from)
  local cursor, found = unpack(redis.call('HSCAN', DATA, from, 'COUNT', RESEAL_PAGE))
  local list = {cursor == '0' and '' or cursor}
  for at = 1, #found, 2 do
    local field = found[at]
    if field == 's' then
      list[#list + 1], list[#list + 2], list[#list + 3] = field, packed_in(field, found[at + 1]) or '', ''
    elseif string.find(field, '^[mlr]') then
      local kept = value_in(field, found[at + 1])
      for _, place in ipairs(kept and places_in(field, kept) or {}) do
        local name = string.sub(field, 1, 1) == 'l' and kept[1] or string.sub(field, 1, 1) == 'r' and kept[place - 1] or ''
        list[#list + 1], list[#list + 2], list[#list + 3] = field, kept[place], name
      end
    end
  end
  return list
end

-- ARGV  3... field, the value that was read, the value to be kept
-- → how many were exchanged
function operation.reseal_room_values()
  local count = 0
  for at = 3, #ARGV, 3 do
    local field, old, new = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    if field == 's' then
      if packed_in(field, redis.call('HGET', DATA, field)) == old then
        redis.call('HSET', DATA, field, seal(field, new) .. new)
        count = count + 1
      end
    else
      local kept = read(field)
      for _, place in ipairs(kept and places_in(field, kept) or {}) do
        if kept[place] == old then
          kept[place] = new
          redis.call('HSET', DATA, field, keep(field, kept))
          count = count + 1
          break
        end
      end
    end
  end
  return count
end

return operation[ARGV[1]](unpack(ARGV, 3, 4))
