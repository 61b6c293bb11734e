-- The head of a session, and its logs. The operations, and what KEYS and ARGV are: session.lua.
--
-- The fields of the head are those of `HEAD_FIELDS` (session/head.py), and: ttl_ms, client_away_ms, history_bytes, worker_ids,
-- `history_parts` (not there: no item of the history is a further part of an entry),
-- `tokens` {current, previous, {retired...}}, `client_claims` and `worker_claims` {{nonce, epoch, previous node, lost up from, to,
-- lost down from, to, asked_ms, attempt, agreed}...}. `up_ahead` and `down_ahead` are `Ahead` of session/records.py:
-- 'first last lone lone_first', with `-` for no party; they are there when a party has claimed to know more than was stored.
-- `up_heard` is what the worker says that it has of its client's messages beyond `up_last`, or not there: no more than that.
-- `jobs` grows with each change of a job that a party may see, or is not there: the session never had one.
-- `streams` is not there: no stream yet. `hand_outs` is "count up_acked", and `handed_on` what a worker has left for the next one.
-- `failed` is "seq count at_ms set_aside" of the failed hand-outs (core/failures.py), or not there: none has failed.
-- A log exists from its first entry on. Its highest id is `last`, be the entry there or not.
--
-- A value that is not what it should be makes the script fail, which redis_connection.py takes for what it is: a damaged session.
local key = KEYS[1]

local function exists()
  return redis.call('EXISTS', key) == 1
end

local function get(...)
  return redis.call('HMGET', key, ...)
end

local function set(...)
  redis.call('HSET', key, ...)
end

-- As `Access` of core/callers.py, in its two words.
local function is_allowed(kind, text)
  local v = get('principal', 'worker')
  return kind == 'a' or kind == 'o' and v[1] == text or kind == 't' and string.sub(v[1], 1, #text) == text
    or kind == 'w' and text ~= '' and v[2] == text
end

local function unpacked(field)
  return cmsgpack.unpack(get(field)[1])
end

-- The values of `HEAD_FIELDS`. What the absence of the others means, session/head.py says.
local function head()
  local v = get(HEAD_FIELDS)
  v[HEAD.said_before] = v[HEAD.said_before] or v[HEAD.down_last]
  return v
end

-- What a script never looks at may be damaged as well.
local function is_whole(v)
  for i = 1, HEAD_COUNT do
    local kind = string.sub(HEAD_KINDS, i, i)
    if kind ~= 'o' and not v[i] then
      return false
    end
    -- No number of ours is above SEQ_MAX, and none above it can be told from its neighbours.
    if kind == 'n' and (not string.find(v[i], '^%d+$') or tonumber(v[i]) > SEQ_MAX) then
      return false
    end
  end
  return true
end

-- A safety net only: sessions end by EndSession and ExpireSession. Where no node is left to say so, the keys go by themselves.
-- KeepAlive renews it (`touch` in session/packing.py).
local function touch_all(ttl_ms)
  local left = string.format('%.0f', math.max(2 * ttl_ms, SAFETY_MIN_MS))
  for _, each in ipairs(KEYS) do
    redis.call('PEXPIRE', each, left)
  end
end

local function expire_with_head(born)
  local left = redis.call('PTTL', key)
  if left > 0 then
    redis.call('PEXPIRE', born, left)
  end
end

-- Lets each of these nodes look at the session.
local function wake(...)
  local told = {}
  for _, node in ipairs({...}) do
    if node and not told[node] then
      told[node] = true
      wake_node(node, 's' .. string.sub(key, ID_FROM, -2))
    end
  end
end

-- Keep what the core server has answered; the absence of a field means nothing was.
local function put_answer(settings, rooms, asked_until_ms)
  if settings == '' and rooms == '' and tonumber(asked_until_ms) == 0 then
    redis.call('HDEL', key, 'settings', 'rooms', 'asked_until_ms')
  else
    set('settings', settings, 'rooms', rooms, 'asked_until_ms', asked_until_ms)
  end
end

local function begin(created_ms, principal, want, meta, receipts, ttl_ms, client_epoch, client_node, claims, tokens, now_ms)
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7])
  set('client_epoch', client_epoch, 'worker_epoch', 0, 'up_last', 0, 'up_acked', 0, 'down_last', 0, 'down_acked', 0,
    'said_before', 0,
    'client_node', client_node, 'worker_node', '', 'receipts', receipts, 'history_bytes', 0, 'worker', '', 'worker_state', '',
    'workers', 0, 'worker_ids', cmsgpack.pack({}), 'created_ms', created_ms, 'principal', principal, 'want', want,
    'meta', meta, 'ttl_ms', ttl_ms, 'client_away_ms', now_ms, 'client_claims', cmsgpack.pack(claims),
    'worker_claims', cmsgpack.pack({}), 'tokens', cmsgpack.pack(tokens))
end

-- Logs ----------------------------------------------------------------------------------------------------------------

local LOGS = {up = KEYS[2], down = KEYS[3]}

local function id(seq)
  return string.format('%.0f-0', seq)
end

-- Add an entry that `last` does not cover yet.
local function add(way, seq, kind, body)
  local log = LOGS[way]
  local done = redis.pcall('XADD', log, id(seq), kind, body)
  if type(done) ~= 'table' then
    return
  end
  if not string.find(done.err, 'equal or smaller', 1, true) then
    redis.call('XADD', log, id(seq), kind, body)  -- raises it
  end
  -- What a script that was cut short has left gives way; see append.lua.
  local kept = redis.call('XRANGE', log, '-', id(tonumber(get(way .. '_last')[1])))
  redis.call('DEL', log)
  for _, entry in ipairs(kept) do
    redis.call('XADD', log, entry[1], entry[2][1], entry[2][2])
  end
  redis.call('XADD', log, id(seq), kind, body)
  expire_with_head(log)
end

-- Let `last` of a log be at least `known`; returns from, to of what the store must have lost, or 0, 0.
local function raise_last(way, known)
  local last = tonumber(get(way .. '_last')[1])
  if known <= last then
    return 0, 0
  end
  add(way, known, 'b', '')
  redis.call('XDEL', LOGS[way], id(known))
  expire_with_head(LOGS[way])
  set(way .. '_last', known)
  return last + 1, known
end

local function acknowledge(way, seq)
  local v = get(way .. '_last', way .. '_acked')
  seq = math.min(seq, tonumber(v[1]))
  if seq > tonumber(v[2]) then
    set(way .. '_acked', seq)
    redis.call('XTRIM', LOGS[way], 'MINID', '~', id(seq + 1))
  end
end
