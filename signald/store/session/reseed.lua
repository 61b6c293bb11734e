-- What a node gives back of a session, after the store has lost something.

-- Merge what the caller knows of a party; tell whether it is newer. A node speaks for the parties it holds itself only.
local function reseed_side(party, epoch, node)
  local v = get(party .. '_epoch', party .. '_node')
  local known, at = tonumber(v[1]), v[2]
  local newer = tonumber(epoch) > known
  if newer then
    at = ''
  end
  if tonumber(epoch) >= known and at == '' and node == caller then
    at = caller
  end
  set(party .. '_epoch', newer and epoch or v[1], party .. '_node', at)
  return newer, v[2] ~= '' and at == '', v[2] == '' and at ~= ''
end

-- Remembers how the last claim of the client was asked for, where the store has lost it. Its nonce is lost as well.
local function give_back_claim(epoch, asked_ms, attempt)
  local claims = claims_kept('client_claims')
  local last = claims[#claims]
  if asked_ms > 0 and (not last or last[2] < epoch) then
    remember(claims, {'', epoch, '', 0, 0, 0, 0, asked_ms, attempt}, CLAIMS_REMEMBERED)
    set('client_claims', cmsgpack.pack(claims))
  end
end

-- The entries of the tail begin at ARGV[at], three words each as in streams/append.lua; `flags` has a 0 or 1 for each: is it of the
-- history?
local function reseed_log(way, last, acked, first, flags, at, now_ms)
  local v = get(way .. '_last', way .. '_acked')
  local stored = tonumber(v[1])
  local top = math.max(stored, tonumber(last))
  acked = math.max(tonumber(v[2]), math.min(tonumber(acked), top))
  local added = stored
  local beginning = tonumber(last) + 1
  if #flags > 0 and tonumber(first) + #flags - 1 > stored then
    beginning = math.max(tonumber(first), stored + 1)
  end
  if beginning > stored + 1 then
    lose_pieces(way)
  end
  for i = 1, #flags do
    local word = at + 3 * (i - 1)
    local seq, body, mark = tonumber(first) + (i - 1), ARGV[word], ARGV[word + 1]
    local kept = string.byte(flags, i) == 49
    if seq > stored then
      if seq > acked then
        add(way, seq, kept and 'h' or 'b', body)
        added = seq
      end
      if mark ~= '' then
        take_piece(way, seq, cmsgpack.unpack(mark), ARGV[word + 2], now_ms, 1, body)
      elseif kept then
        put_item(SENDER[way] .. body)
      end
    end
  end
  if top > stored then
    if added < top then
      raise_last(way, top)
    end
    set(way .. '_last', top)
  end
  acknowledge(way, acked)
  expire_with_head(LOGS[way])
  expire_with_head(KEYS[4])
end

local function reseed(known, tokens, current, previous, now_ms, up_first, up_flags, down_first, down_flags, asked_ms, attempt)
  if not exists() then
    begin(known[HEAD.created_ms], known[HEAD.principal], known[HEAD.want], known[HEAD.meta], known[HEAD.receipts],
      NO_TTL_MS, 0, '', {}, {'', '', {}}, now_ms)
    begin_events()
    touch_all(0)
  end
  -- A key of another type makes this fail, and so does an entry that `last` does not know of: both would refuse what comes next.
  redis.call('LRANGE', KEYS[4], 0, 0)
  redis.call('HGET', STREAMS, '')
  for way, log in pairs(LOGS) do
    if #redis.call('XRANGE', log, id(tonumber(get(way .. '_last')[1]) + 1), '+', 'COUNT', 1) > 0 then
      error('XADD would fail')
    end
  end
  -- These never change, so each node that knows the session knows them; what is kept of them may be damaged.
  set('created_ms', known[HEAD.created_ms], 'principal', known[HEAD.principal], 'want', known[HEAD.want],
    'meta', known[HEAD.meta], 'receipts', known[HEAD.receipts])
  if known[HEAD.pair] == '0' then
    set('pair', 0)
  else
    redis.call('HDEL', key, 'pair')
  end
  if tonumber(known[HEAD.asked_until_ms]) >= (tonumber(get('asked_until_ms')[1] or 0) or 0) then -- a later answer counts for longer
    put_answer(known[HEAD.settings], known[HEAD.rooms], known[HEAD.asked_until_ms])
  end
  learn_jobs(tonumber(known[HEAD.jobs]))
  local newer, left, back = reseed_side('client', known[HEAD.client_epoch], known[HEAD.client_node])
  if left then
    set('client_away_ms', now_ms)
  end
  local slots = tokens_kept() or {'', '', {}}
  local unknown = slots[1] == '' and #slots[3] == 0
  -- The worker's node may have been first: it knows the epoch, and not the tokens that came with it.
  back = back and slots[1] ~= ''
  if tokens == '1' and (newer or back or (unknown and get('client_epoch')[1] == known[HEAD.client_epoch])) then
    set('tokens', cmsgpack.pack({current, previous, slots[3]}))
    give_back_claim(tonumber(known[HEAD.client_epoch]), tonumber(asked_ms), tonumber(attempt))
  end
  if reseed_side('worker', known[HEAD.worker_epoch], known[HEAD.worker_node]) then
    set('worker', known[HEAD.worker], 'worker_state', known[HEAD.worker_state],
      'said_before', known[HEAD.said_before], 'failed', known[HEAD.failed])
  else
    local v = get('worker_epoch', 'worker', 'said_before')
    if v[1] == known[HEAD.worker_epoch] then
      merge_failures(known[HEAD.failed])
    end
    if v[1] == known[HEAD.worker_epoch] and v[2] == known[HEAD.worker] and known[HEAD.worker] ~= '' then
      set('said_before', math.max(tonumber(v[3] or 0), tonumber(known[HEAD.said_before])))
      if known[HEAD.worker_state] == 'paired' then
        set('worker_state', 'paired')
      end
    end
  end
  learn_events(tonumber(known[HEAD.events]), tonumber(known[HEAD.events_max]))
  local has = get('worker')[1]
  if has ~= '' then
    count_worker(has)
  end
  set('workers', math.max(tonumber(known[HEAD.workers]), tonumber(get('workers')[1])))
  reseed_log('up', known[HEAD.up_last], math.max(tonumber(known[HEAD.up_acked]), heard()), up_first, up_flags,
    #ARGV - 3 * (#down_flags + #up_flags) + 1, now_ms)
  reseed_log('down', known[HEAD.down_last], known[HEAD.down_acked], down_first, down_flags, #ARGV - 3 * #down_flags + 1, now_ms)
  set('streams', math.max(tonumber(known[HEAD.streams]), tonumber(get('streams')[1] or 0) or 0))
  local now = head()
  wake(now[HEAD.client_node], now[HEAD.worker_node])
  return {'head', now}
end

local function is_damage(failure)
  local text = type(failure) == 'table' and failure.err or tostring(failure)
  for _, each in ipairs(DAMAGE_SIGNS) do
    if string.find(text, each, 1, true) then
      return true
    end
  end
  return string.find(text, 'Invalid stream ID', 1, true) ~= nil
end

-- ARGV 14...: the values of the head (`HEAD_FIELDS`), then the entries of both tails
-- Only what can be read in full is added to. Anything else begins anew, from what the caller knows.
function operation.reseed(create, ...)
  if create == '0' and not exists() then
    return {'no_session'}
  end
  local known = {unpack(ARGV, 14, 13 + HEAD_COUNT)}
  local done, answer = pcall(reseed, known, ...)
  if done and is_whole(answer[2]) then
    return answer
  end
  if not done and not is_damage(answer) then
    error(answer)
  end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7])
  return reseed(known, ...)
end
