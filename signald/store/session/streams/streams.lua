-- The streams of a session, and the items of its chat history. It follows head.lua; rules.py of this directory says the same.
--
-- KEYS  5 streams: `u` or `d` (the direction) and the name of a stream → its record, as `Stream` of records.py
--
-- An item of the chat history is a letter for the party and a body with its seal. The letter of an item of a stream is a capital:
-- earlier releases take it for damage, and pass over what they could not show.
local STREAMS = KEYS[7]
local SENDER = {up = 'c', down = 'w'}

-- A record that cannot be read counts as none.
local function whole_stream(kept)
  local read, stream, more = pcall(cmsgpack.unpack, kept)
  if not read or type(stream) ~= 'table' or more ~= nil then
    return nil
  end
  for i = 1, #STREAM_KINDS do
    if type(stream[i]) ~= (string.sub(STREAM_KINDS, i, i) == 't' and 'string' or 'number') then
      return nil
    end
  end
  return stream
end

local function stream_of(way, name)
  local kept = redis.call('HGET', STREAMS, string.sub(way, 1, 1) .. name)
  return kept and whole_stream(kept)
end

local function save_stream(stream)
  if redis.call('HSET', STREAMS, string.sub(stream[STREAM.way], 1, 1) .. stream[STREAM.name], cmsgpack.pack(stream)) == 1 then
    expire_with_head(STREAMS)
  end
end

-- All of them, in the order in which they began.
local function all_streams()
  local found = {}
  if (get('streams')[1] or '0') ~= '0' then
    local kept = redis.call('HGETALL', STREAMS)
    for i = 2, #kept, 2 do
      found[#found + 1] = whole_stream(kept[i])
    end
  end
  table.sort(found, function(one, other)
    return one[STREAM.number] < other[STREAM.number]
  end)
  return found
end

-- What no message tells has changed.
local function tell_change()
  redis.call('HINCRBY', key, 'streams', 1)
end

-- How many items the history has, once one was put; 0: none was.
local items = 0

-- Tells whether an item begins no entry: a further piece of a stream, or its end.
local function is_part(item)
  return string.find(item, '^[CW]') and string.sub(item, 2, 4) ~= 'p0 '
end

-- How many bytes of content an item has.
local function size_of_item(item)
  local sealed = string.byte(item, 2) == SEAL_MARK or string.find(item, '^[CW]p%d+ ' .. string.char(SEAL_MARK))
  return #item - 1 - (sealed and SEALED_BYTES or SEAL_BYTES)
end

local function put_item(item)
  if is_part(item) then
    redis.call('HINCRBY', key, 'history_parts', 1)
  end
  items = redis.call('RPUSH', KEYS[4], item)
  if items == 1 then
    expire_with_head(KEYS[4])
  end
  redis.call('HINCRBY', key, 'history_bytes', size_of_item(item))
end

local function bound_history(count_max, bytes_max)
  if items == 0 then
    return
  end
  local v = get('history_bytes', 'history_parts')
  local bytes, parts = tonumber(v[1]), tonumber(v[2] or 0)
  while items > 0 and (items - parts > tonumber(count_max) or bytes > tonumber(bytes_max)) do
    local item = redis.call('LPOP', KEYS[4])
    bytes = bytes - size_of_item(item)
    items = items - 1
    if is_part(item) then
      parts = math.max(0, parts - 1)
    end
  end
  set('history_bytes', bytes, 'history_parts', parts)
end

-- signald ends a stream. Four bytes stand where the seal of a body is, so that all items are counted alike.
local function close_stream(stream, outcome, now_ms)
  stream[STREAM.outcome], stream[STREAM.by_signald] = outcome, 1
  if stream[STREAM.folds] == 1 then
    put_item(string.format('%se%.0f %.0f %s %s %s----', string.upper(SENDER[stream[STREAM.way]]), stream[STREAM.attempt],
      stream[STREAM.last], now_ms, outcome, stream[STREAM.name]))
  end
  save_stream(stream)
  tell_change()
end

close_stream_of_job = function(n, now_ms)
  for _, stream in ipairs(all_streams()) do
    if stream[STREAM.way] == 'down' and stream[STREAM.job] == n and stream[STREAM.outcome] == '' then
      close_stream(stream, 'interrupted', now_ms)
    end
  end
end

-- → those that it has interrupted
local function close_all_streams(now_ms)
  local closed = {}
  for _, stream in ipairs(all_streams()) do
    if stream[STREAM.outcome] == '' then
      close_stream(stream, 'interrupted', now_ms)
      closed[#closed + 1] = cmsgpack.pack(stream)
    end
  end
  return closed
end

local function find_streams(epoch)
  for _, stream in ipairs(all_streams()) do
    if stream[STREAM.way] == 'down' and stream[STREAM.outcome] == '' and stream[STREAM.job] == 0 then
      stream[STREAM.found] = epoch
      save_stream(stream)
    end
  end
end

-- Messages of this direction are lost.
local function lose_pieces(way)
  for _, stream in ipairs(all_streams()) do
    if stream[STREAM.way] == way and stream[STREAM.outcome] == '' then
      stream[STREAM.pieces] = stream[STREAM.pieces] + 1
      save_stream(stream)
    end
  end
end

local function shown_streams()
  local found = {}
  for _, stream in ipairs(all_streams()) do
    if stream[STREAM.outcome] == '' or stream[STREAM.by_signald] == 1 then
      found[#found + 1] = cmsgpack.pack(stream)
    end
  end
  return found
end

local function make_stream_room(way, now_ms)
  local known, open, first_open, first_over = all_streams(), 0, nil, nil
  for _, stream in ipairs(known) do
    if stream[STREAM.outcome] ~= '' then
      first_over = first_over or stream
    elseif stream[STREAM.way] == way and stream[STREAM.job] == 0 then
      open, first_open = open + 1, first_open or stream
    end
  end
  if open >= OPEN_MAX then
    close_stream(first_open, 'interrupted', now_ms)
  end
  if #known >= KNOWN_MAX and first_over then
    redis.call('HDEL', STREAMS, string.sub(first_over[STREAM.way], 1, 1) .. first_over[STREAM.name])
  end
  return #known > 0 and known[#known][STREAM.number] + 1 or 1
end

-- `mark` is {stream, attempt, 1 if it is a text of the history, outcome, kind, job, error, 1 if it is a piece of a text}; `piece` is what goes into the
-- history, with its seal, as `body` has one. `given_back` is 1 where a node gives it back.
-- → the code of a refusal, or nil
local function take_piece(way, seq, mark, piece, now_ms, given_back, body)
  local name, attempt, in_history, outcome, kind, job = unpack(mark, 1, 6)
  local stream = stream_of(way, name)
  if stream and stream[STREAM.outcome] ~= '' then
    return 'stream_over'
  elseif stream and attempt < stream[STREAM.attempt] then
    return 'stream_superseded'
  end
  local of_job = job ~= 0 and way == 'down'
  local refused = of_job and given_back == 0 and judge_job_piece(mark, now_ms)
  if refused then
    return refused
  end
  if not stream then
    local number = make_stream_room(way, now_ms)
    stream = {way, name, number, attempt, '', '', 0, given_back, 0, '', 0, tonumber(now_ms), job, 0, 0}
    if (get('streams')[1] or '0') == '0' then
      set('streams', 1)
    end
  elseif attempt > stream[STREAM.attempt] then
    stream[STREAM.attempt], stream[STREAM.pieces] = attempt, 0
  end
  if kind ~= '' then
    stream[STREAM.kind] = kind
  end
  stream[STREAM.last], stream[STREAM.found], stream[STREAM.outcome] = seq, 0, outcome
  if in_history == 1 then
    stream[STREAM.folds] = 1
  end
  if stream[STREAM.folds] == 1 then
    put_item(string.format('%sp%.0f ', string.upper(SENDER[way]), stream[STREAM.pieces]) .. piece)
    stream[STREAM.pieces] = stream[STREAM.pieces] + 1
  end
  if of_job and outcome ~= '' then
    -- That it is over, its job knows: a session may have a thousand jobs an hour.
    redis.call('HDEL', STREAMS, string.sub(way, 1, 1) .. name)
  else
    save_stream(stream)
  end
  if of_job then
    job_piece(seq, mark, body, mark[8] == 1, now_ms)
  end
  return nil
end
