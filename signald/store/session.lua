-- Every operation on one session but the hot ones (append.lua, ack.lua, look.lua).
--
-- KEYS  1 head  2 log of client → worker  3 log of worker → client  4 chat history (each entry: c or w, body)
-- ARGV  1 operation  2 the caller's node  3... the arguments of the function below that has its name
-- An answer begins with its kind, which redis_replies.py makes a result of.
--
-- The head's fields are those of `Head`, and: ttl_ms, client_away_ms, history_bytes, worker_ids, `tokens` {current, previous,
-- {retired...}}, `client_claims` and `worker_claims` {{nonce, epoch, previous node, lost up from, to, lost down from, to, asked_ms,
-- attempt, agreed}...}. `up_ahead` and `down_ahead` are `Ahead` of records.py: 'first last lone lone_first', with `-` for no party;
-- they are there when a party has claimed to know more than was stored.
-- `up_heard` is what the worker says that it has of its client's messages beyond `up_last`, or not there: no more than that.
-- `failed` is "seq count at_ms set_aside" of the failed hand-outs (core/failures.py), or not there: none has failed.
-- A log exists from its first entry on. Its highest id is `last`, be the entry there or not.
--
-- A value that is not what it should be makes the script fail, which redis_connection.py takes for what it is: a damaged session.
local key, caller = KEYS[1], ARGV[2]
local RETIRED_MAX = 8
local CLOCK_SET_MS = 60000 -- see base.py
local CLAIMS_REMEMBERED = 8
local WORKERS_REMEMBERED = 16
local NO_TTL_MS = '4503599627370496'
local IDLE_FAILURE_MS = 10000 -- see base.py
local TOUCH_MIN_MS = 3600000
local NUMBER_MAX = 9007199254740991 -- 2^53 - 1: no number of ours is above it, and none above it can be told from its neighbours
local SEQ_LAST = 9007199254740990 -- 2^53 - 2, the last seq that leaves another one to go on with
local NUMBERS = {[1] = true, [6] = true, [10] = true, [12] = true, [13] = true, [14] = true, [15] = true, [16] = true,
  [17] = true} -- in `head`

local function exists()
  return redis.call('EXISTS', key) == 1
end

local function get(...)
  return redis.call('HMGET', key, ...)
end

local function set(...)
  redis.call('HSET', key, ...)
end

local function unpacked(field)
  return cmsgpack.unpack(get(field)[1])
end

-- A field that a release added later is absent in what its predecessor wrote, which means for
--   said_before           that the worker began where the log ends now
--   up_ahead, down_ahead  that no party has claimed to know more than was stored
--   failed                that no hand-out has failed
--   up_heard              that the worker has said nothing of more than was stored
local function head()
  local v = get('created_ms', 'principal', 'want', 'meta', 'receipts', 'client_epoch', 'client_node', 'worker', 'worker_state',
    'worker_epoch', 'worker_node', 'workers', 'up_last', 'up_acked', 'down_last', 'down_acked', 'said_before', 'up_ahead',
    'down_ahead', 'failed')
  v[17] = v[17] or v[15]
  return v
end

-- A safety net only: sessions end by EndSession and ExpireSession. Where no node is left to say so, the keys go by themselves.
-- KeepAlive renews it (`SAFETY_MIN_MS` in redis_servers.py).
local function touch_all(ttl_ms)
  local left = string.format('%.0f', math.max(2 * ttl_ms, TOUCH_MIN_MS))
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

local function wake(...)
  local told = {[''] = true, [caller] = true}
  for _, node in ipairs({...}) do
    if node and not told[node] then
      told[node] = true
      redis.call('PUBLISH', 'signald:node:' .. node, 's' .. string.sub(key, 10, -2))
    end
  end
end

local function begin(created_ms, principal, want, meta, receipts, ttl_ms, client_epoch, client_node, claims, tokens, now_ms)
  redis.call('DEL', unpack(KEYS))
  set('client_epoch', client_epoch, 'worker_epoch', 0, 'up_last', 0, 'up_acked', 0, 'down_last', 0, 'down_acked', 0,
    'said_before', 0,
    'client_node', client_node, 'worker_node', '', 'receipts', receipts, 'history_bytes', 0, 'worker', '', 'worker_state', '',
    'workers', 0, 'worker_ids', cmsgpack.pack({}), 'created_ms', created_ms, 'principal', principal, 'want', want,
    'meta', meta, 'ttl_ms', ttl_ms, 'client_away_ms', now_ms, 'client_claims', cmsgpack.pack(claims),
    'worker_claims', cmsgpack.pack({}), 'tokens', cmsgpack.pack(tokens))
end

-- Logs ------------------------------------------------------------------------------------------------------------------

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

-- Tokens, as in core/tokens ---------------------------------------------------------------------------------------------

local function retire(retired, token)
  if token ~= '' then
    retired[#retired + 1] = token
    if #retired > RETIRED_MAX then
      table.remove(retired, 1)
    end
  end
end

-- Returns the slots, or nil when they cannot be read.
local function tokens_kept()
  local read, slots = pcall(unpacked, 'tokens')
  local whole = read and type(slots) == 'table' and type(slots[1]) == 'string' and type(slots[2]) == 'string'
    and type(slots[3]) == 'table'
  return whole and slots or nil
end

-- Returns the reason of a refusal, or nil and the slots to keep.
-- Equal strings are one object in Lua, so `==` compares addresses: it takes the same time whatever they hold.
local function present(slots, presented, issued, tied)
  local current, previous, retired = slots[1], slots[2], slots[3]
  for _, old in ipairs(retired) do
    if old == presented and tied then
      return 'late'
    elseif old == presented then
      retire(retired, previous)
      retire(retired, current)
      set('tokens', cmsgpack.pack({'', '', retired}))
      return 'token_reuse'
    end
  end
  if current == '' then
    -- A session given back by a node that does not know its tokens has none, which says nothing of a revocation.
    return #retired > 0 and 'revoked' or 'unknown'
  end
  if current == presented then
    retire(retired, previous)
  elseif previous ~= '' and previous == presented then
    retire(retired, current)
  else
    return 'unknown'
  end
  return nil, {issued, presented, retired}
end

-- Claims ----------------------------------------------------------------------------------------------------------------

local function claimed(claim, away_ms)
  return {'claimed', {unpack(claim, 1, 7)}, head(), away_ms, claim[10] == 1 and 1 or 0}
end

-- How long the client had been detached when it made `claim`.
local function away_ms(claim, now_ms)
  return claim[3] == '' and math.max(0, tonumber(now_ms) - tonumber(get('client_away_ms')[1])) or 0
end

-- The claims that can be read: those that cannot only keep one that is repeated from being known again.
local function claims_kept(field)
  local read, all = pcall(unpacked, field)
  local whole = {}
  for _, claim in ipairs(read and type(all) == 'table' and all or {}) do
    local good = type(claim) == 'table' and type(claim[1]) == 'string' and type(claim[3]) == 'string'
    for i = 2, good and 8 or 0 do
      good = good and (i == 3 or type(claim[i]) == 'number')
    end
    whole[#whole + 1] = good and claim or nil
  end
  return whole
end

-- The last claim that was granted had been asked for after this one.
local function is_late(field, asked_ms)
  local claims = claims_kept(field)
  local last = claims[#claims]
  local before_ms = last ~= nil and last[8] ~= nil and last[8] - tonumber(asked_ms) or 0
  return before_ms > 0 and before_ms <= CLOCK_SET_MS
end

-- The last claim that was granted is a later attempt of the party, asked for in the same moment.
local function is_tied(field, attempt, asked_ms)
  local claims = claims_kept(field)
  local last = claims[#claims]
  local kept = last and type(last[9]) == 'number' and last[9] or 0
  return tonumber(attempt) > 0 and tonumber(attempt) < kept and tonumber(asked_ms) == last[8]
end

-- The last claim that was granted is a later attempt of the party, of not long ago. Earlier releases keep no attempt.
local function is_outdone(field, attempt, asked_ms)
  local claims = claims_kept(field)
  local last = claims[#claims]
  local kept = last and type(last[9]) == 'number' and last[9] or 0
  return tonumber(attempt) > 0 and tonumber(attempt) < kept and math.abs(tonumber(asked_ms) - last[8]) <= CLOCK_SET_MS
end

local function find_claim(field, nonce)
  for _, claim in ipairs(claims_kept(field)) do
    if claim[1] == nonce then
      return claim
    end
  end
  return nil
end

local function count_worker(worker)
  local had = unpacked('worker_ids')
  for _, each in ipairs(had) do
    if each == worker then
      return
    end
  end
  had[#had + 1] = worker
  if #had > WORKERS_REMEMBERED then
    table.remove(had, 1)
  end
  set('worker_ids', cmsgpack.pack(had))
  redis.call('HINCRBY', key, 'workers', 1)
end

-- Does a party claim too much: further beyond the store than it is believed, or so that no seq would be left?
local function is_ahead(up, down, ahead_max)
  local v = get('up_last', 'down_last')
  for i, known in ipairs({up, down}) do
    local last = tonumber(v[i])
    if known > last and known > math.min(last + tonumber(ahead_max), SEQ_LAST) then
      return true
    end
  end
  return false
end

-- Let `last` of one direction be at least `known` by the word of `party`, but not what a client has sent by its worker's word;
-- see `hear_claim` in records.py.
-- Returns from, to of what the store must have lost if that is true, and whether the other party has said so by itself.
local function hear_claim(way, party, known)
  local v = get(way .. '_ahead', way .. '_last', way .. '_acked', (party == 'client' and 'worker' or 'client') .. '_node')
  local first, last, lone, lone_first = string.match(v[1] or '', '^(%d+) (%d+) ([%a-]+) (%d+)$')
  first, last, lone, lone_first = tonumber(first or 0), tonumber(last or 0), lone or '-', tonumber(lone_first or 0)
  local agreed = lone ~= '-' and lone ~= party and known >= lone_first
  if lone ~= party then
    lone, lone_first = '-', 0
  end
  local believed = way == 'down' or party == 'client'
  local from, to = 0, 0
  if believed then
    from, to = raise_last(way, known)
  elseif known > tonumber(v[2]) then
    from, to = tonumber(v[2]) + 1, known
  end
  if to > 0 then
    if v[4] ~= '' then
      lone, lone_first = '-', 0
    else
      lone, lone_first = party, lone_first > 0 and lone_first or from
    end
    if believed then
      first, last = tonumber(v[3]) >= last and from or first, to
    end
  end
  if v[1] or to > 0 then
    set(way .. '_ahead', string.format('%.0f %.0f %s %.0f', first, last, lone, lone_first))
  end
  return from, to, agreed
end

-- Failed hand-outs, as in core/failures ------------------------------------------------------------------------------------

-- Returns seq, count, at_ms, set_aside (0 or 1) of `text`; what cannot be read counts as none.
local function failures_of(text)
  local seq, count, at_ms, aside = string.match(text or '', '^(%d+) (%d+) (%d+) ([01])$')
  return tonumber(seq or 0), tonumber(count or 0), tonumber(at_ms or 0), tonumber(aside or 0)
end

local function is_set_aside()
  local v = get('failed', 'up_acked')
  local seq, _, _, aside = failures_of(v[1])
  return aside == 1 and seq == tonumber(v[2]) + 1
end

local function count_failure(failures_max, now_ms, ended_ms)
  local v = get('failed', 'up_last', 'up_acked')
  local claims = claims_kept('worker_claims')
  local last = claims[#claims]
  local held_ms = last and tonumber(ended_ms) - last[8] or -1
  if tonumber(v[2]) <= tonumber(v[3]) and (held_ms < 0 or held_ms > IDLE_FAILURE_MS) then
    redis.call('HDEL', key, 'failed')
    return
  end
  local seq, count = failures_of(v[1])
  local first = tonumber(v[3]) + 1
  count = (seq == first and count or 0) + 1
  set('failed', string.format('%.0f %.0f %s %d', first, count, now_ms, count >= tonumber(failures_max) and 1 or 0))
end

-- Of two records under one epoch the lesser has lost something.
local function merge_failures(known)
  local mine, theirs = {failures_of(get('failed')[1] or nil)}, {failures_of(known)}
  for i = 1, 4 do
    if mine[i] ~= theirs[i] then
      if theirs[i] > mine[i] then
        set('failed', known)
      end
      return
    end
  end
end

-- What the worker says that it has of its client's messages, where that is more than is stored; 0: no more.
local function heard()
  return tonumber(get('up_heard')[1] or 0) or 0
end

-- Attach a party here. By what it knows, at least `up` and `down` messages have been in the logs.
local function claim(party, nonce, up, down, asked_ms, attempt)
  local v = get(party .. '_epoch', party .. '_node', 'client_node', 'worker_node')
  local made = {nonce, tonumber(v[1]) + 1, v[2], 0, 0, 0, 0, tonumber(asked_ms), tonumber(attempt)}
  local up_agreed, down_agreed
  made[4], made[5], up_agreed = hear_claim('up', party, up)
  made[6], made[7], down_agreed = hear_claim('down', party, down)
  made[10] = (up_agreed or down_agreed) and 1 or 0
  if party == 'client' then
    acknowledge('down', down)
    if made[5] > 0 then
      acknowledge('up', heard())
    end
  else
    acknowledge('up', up)
    if made[5] > 0 then
      set('up_heard', up)
    else
      redis.call('HDEL', key, 'up_heard')
    end
  end
  local claims = claims_kept(party .. '_claims')
  claims[#claims + 1] = made
  if #claims > CLAIMS_REMEMBERED then
    table.remove(claims, 1)
  end
  set(party .. '_epoch', made[2], party .. '_node', caller, party .. '_claims', cmsgpack.pack(claims))
  wake(v[3], v[4])
  return claimed(made, party == 'client' and away_ms(made, asked_ms) or 0)
end

-- Operations ------------------------------------------------------------------------------------------------------------

local operation = {}

function operation.create(nonce, principal, want, meta, receipts, token, now_ms, ttl_ms)
  if exists() then
    return find_claim('client_claims', nonce) and {'head', head()} or {'exists'}
  end
  begin(now_ms, principal, want, meta, receipts, ttl_ms, 1, caller, {{nonce, 1, '', 0, 0, 0, 0, tonumber(now_ms)}}, {token, '', {}}, now_ms)
  touch_all(tonumber(ttl_ms))
  return {'head', head()}
end

function operation.claim_client(nonce, principal, presented, issued, received, acked, now_ms, ttl_ms, attempt, ahead_max)
  if not exists() then
    return {'refused', 'unknown'}
  end
  local before = find_claim('client_claims', nonce)
  if before then
    return claimed(before, away_ms(before, now_ms))
  end
  -- Before the token is looked at: another subject with a found token, retired or not, learns and changes nothing.
  local owner = get('principal')[1]
  if owner and owner ~= principal then
    return {'refused', 'principal'}
  end
  if is_late('client_claims', now_ms) then
    return {'refused', 'late'}
  end
  local kept = owner and tokens_kept()
  if not kept then
    set('created_ms', '') -- so that whoever holds a party sees that there is damage, and gives back what it knows
    return {'refused', 'unreadable'}
  end
  local refused, slots = present(kept, presented, issued, is_tied('client_claims', attempt, now_ms))
  if refused then
    return {'refused', refused}
  end
  local v = get('client_node', 'client_away_ms', 'ttl_ms')
  if v[1] == '' and tonumber(now_ms) - tonumber(v[2]) >= tonumber(v[3]) then
    return {'refused', 'expired'}
  end
  if kept[2] == presented and is_outdone('client_claims', attempt, now_ms) then
    return {'refused', 'late'}
  end
  if is_ahead(tonumber(acked), tonumber(received), ahead_max) then
    return {'refused', 'ahead'}
  end
  set('tokens', cmsgpack.pack(slots), 'ttl_ms', ttl_ms)
  touch_all(tonumber(ttl_ms))
  return claim('client', nonce, tonumber(acked), tonumber(received), now_ms, attempt)
end

function operation.claim_worker_side(nonce, worker, assign, received, acked, now_ms, ahead_max)
  if not exists() then
    return {'refused', 'unknown'}
  end
  local before = find_claim('worker_claims', nonce)
  if before then
    return claimed(before, 0)
  end
  if assign ~= '1' then
    if get('worker')[1] ~= worker then
      return {'refused', 'not_yours'}
    elseif is_late('worker_claims', now_ms) then
      return {'refused', 'late'}
    end
  end
  if is_ahead(tonumber(received), tonumber(acked), ahead_max) then
    return {'refused', 'ahead'}
  end
  if assign == '1' and is_set_aside() then
    return {'refused', 'set_aside'}
  end
  if assign == '1' then
    local last = tonumber(get('down_last')[1])
    set('worker', worker, 'worker_state', 'assigned', 'said_before', math.max(last, tonumber(acked)))
    count_worker(worker)
  end
  return claim('worker', nonce, tonumber(received), tonumber(acked), now_ms, 0)
end

function operation.accept(epoch)
  local v = get('worker_epoch', 'worker_node', 'worker_state', 'client_node')
  if not v[1] then
    return exists() and {'behind', 0} or {'no_session'}
  end
  if v[1] ~= epoch or v[2] ~= caller then
    return {'fenced', tonumber(v[1])}
  end
  if v[3] ~= 'paired' then
    set('worker_state', 'paired')
    wake(v[4])
  end
  return {'done'}
end

-- `failures_max`, `now_ms` and `ended_ms` come with a hand-out that has failed only.
local function unpair(worker, epoch, failures_max, now_ms, ended_ms)
  local v = get('worker_epoch', 'worker', 'worker_node', 'client_node')
  if not v[1] then
    return {'no_session'}
  end
  if v[2] ~= '' and v[2] == worker then
    local asked, held = tonumber(epoch), tonumber(v[1])
    if asked > 0 and asked < held then
      return {'fenced', held}
    end
    if failures_max then
      count_failure(failures_max, now_ms, ended_ms)
    end
    set('worker', '', 'worker_state', '', 'worker_node', '', 'worker_epoch', math.max(asked, held) + 1)
    wake(v[3], v[4])
  end
  return {'done'}
end

function operation.unpair(worker, epoch)
  return unpair(worker, epoch)
end

function operation.unpair_failed(worker, epoch, failures_max, now_ms, ended_ms)
  local answer = unpair(worker, epoch, failures_max, now_ms, ended_ms)
  return answer[1] == 'done' and {'unpaired', head()} or answer
end

function operation.retry()
  if not exists() then
    return {'no_session'}
  end
  if is_set_aside() then
    local v = get('worker_epoch', 'worker_node', 'client_node')
    redis.call('HDEL', key, 'failed')
    set('worker_epoch', tonumber(v[1]) + 1)
    wake(v[2], v[3])
  end
  return {'unpaired', head()}
end

function operation.detach(party, epoch, now_ms)
  local v = get(party .. '_epoch', party .. '_node', 'client_node', 'worker_node')
  if caller ~= '' and v[1] == epoch and v[2] == caller then
    set(party .. '_node', '')
    if party == 'client' then
      set('client_away_ms', now_ms)
    end
    wake(v[3], v[4])
  end
  return {'done'}
end

function operation.confirm(epoch)
  if get('client_epoch')[1] == epoch then
    local slots = unpacked('tokens')
    if slots[2] ~= '' then
      retire(slots[3], slots[2])
      set('tokens', cmsgpack.pack({slots[1], '', slots[3]}))
    end
  end
  return {'done'}
end

local function finish()
  local read, was = pcall(head)
  redis.call('DEL', unpack(KEYS))
  if not read then
    return {'no_session'}
  end
  wake(was[7], was[11])
  return {'ended', was}
end

function operation.finish()
  return exists() and finish() or {'no_session'}
end

-- ARGV 5...: the live nodes
function operation.expire(now_ms, ttl_ms)
  local v = get('client_node', 'client_away_ms')
  if not v[1] then
    return exists() and {'behind', 0} or {'done'}
  end
  if v[1] == '' then
    return tonumber(now_ms) - tonumber(v[2]) >= tonumber(ttl_ms) and finish() or {'done'}
  end
  for i = 5, #ARGV do
    if ARGV[i] == v[1] then
      return {'done'}
    end
  end
  return finish()
end

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

-- What a script never looks at may be damaged as well.
local function is_whole(v)
  for i = 1, 17 do
    if not v[i] or (NUMBERS[i] and (not string.find(v[i], '^%d+$') or tonumber(v[i]) > NUMBER_MAX)) then
      return false
    end
  end
  return true
end

-- The bodies of the tail begin at ARGV[at]; `flags` has a 0 or 1 for each: is it of the history?
local function reseed_log(way, letter, last, acked, first, flags, at)
  local v = get(way .. '_last', way .. '_acked')
  local stored = tonumber(v[1])
  local top = math.max(stored, tonumber(last))
  acked = math.max(tonumber(v[2]), math.min(tonumber(acked), top))
  local added = stored
  for i = 1, #flags do
    local seq, body = tonumber(first) + (i - 1), ARGV[at + i - 1]
    local kept = string.byte(flags, i) == 49
    if seq > stored then
      if seq > acked then
        add(way, seq, kept and 'h' or 'b', body)
        added = seq
      end
      if kept then
        redis.call('RPUSH', KEYS[4], letter .. body)
        redis.call('HINCRBY', key, 'history_bytes', #body - 4)
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

local function reseed(created_ms, principal, want, meta, receipts, client_epoch, client_node, worker, worker_state,
    worker_epoch, worker_node, workers, up_last, up_acked, down_last, down_acked, said_before, tokens, current, previous,
    now_ms, up_first, up_flags, down_first, down_flags, failed)
  if not exists() then
    begin(created_ms, principal, want, meta, receipts, NO_TTL_MS, 0, '', {}, {'', '', {}}, now_ms)
    touch_all(0)
  end
  -- A key of another type makes this fail, and so does an entry that `last` does not know of: both would refuse what comes next.
  redis.call('LRANGE', KEYS[4], 0, 0)
  for way, log in pairs(LOGS) do
    if #redis.call('XRANGE', log, id(tonumber(get(way .. '_last')[1]) + 1), '+', 'COUNT', 1) > 0 then
      error('XADD would fail')
    end
  end
  -- What never changes is known to whoever knows the session at all.
  set('created_ms', created_ms, 'principal', principal, 'want', want, 'meta', meta, 'receipts', receipts)
  local newer, left, back = reseed_side('client', client_epoch, client_node)
  if left then
    set('client_away_ms', now_ms)
  end
  local slots = tokens_kept() or {'', '', {}}
  local unknown = slots[1] == '' and #slots[3] == 0
  -- The worker's node may have been first: it knows the epoch, and not the tokens that came with it.
  back = back and slots[1] ~= ''
  if tokens == '1' and (newer or back or (unknown and get('client_epoch')[1] == client_epoch)) then
    set('tokens', cmsgpack.pack({current, previous, slots[3]}))
  end
  if reseed_side('worker', worker_epoch, worker_node) then
    set('worker', worker, 'worker_state', worker_state, 'said_before', said_before, 'failed', failed)
  else
    local v = get('worker_epoch', 'worker', 'said_before')
    if v[1] == worker_epoch then
      merge_failures(failed)
    end
    if v[1] == worker_epoch and v[2] == worker and worker ~= '' then
      set('said_before', math.max(tonumber(v[3] or 0), tonumber(said_before)))
      if worker_state == 'paired' then
        set('worker_state', 'paired')
      end
    end
  end
  local has = get('worker')[1]
  if has ~= '' then
    count_worker(has)
  end
  set('workers', math.max(tonumber(workers), tonumber(get('workers')[1])))
  reseed_log('up', 'c', up_last, math.max(tonumber(up_acked), heard()), up_first, up_flags, #ARGV - #down_flags - #up_flags + 1)
  reseed_log('down', 'w', down_last, down_acked, down_first, down_flags, #ARGV - #down_flags + 1)
  local now = head()
  wake(now[7], now[11])
  return {'head', now}
end

-- What an error says when it comes from what is kept, and not from a server that is full or refuses; see redis_connection.py.
local DAMAGED = {'attempt to', 'bad argument', 'WRONGTYPE', 'XADD', ' in input', 'not an integer', 'Invalid stream ID'}

local function is_damage(failure)
  local text = type(failure) == 'table' and failure.err or tostring(failure)
  for _, each in ipairs(DAMAGED) do
    if string.find(text, each, 1, true) then
      return true
    end
  end
  return false
end

-- Only what can be read in full is added to. Anything else begins anew, from what the caller knows.
function operation.reseed(create, ...)
  if create == '0' and not exists() then
    return {'no_session'}
  end
  local done, answer = pcall(reseed, ...)
  if done and is_whole(answer[2]) then
    return answer
  end
  if not done and not is_damage(answer) then
    error(answer)
  end
  redis.call('DEL', unpack(KEYS))
  return reseed(...)
end

function operation.history(limit)
  return tonumber(limit) > 0 and redis.call('LRANGE', KEYS[4], '-' .. limit, -1) or {}
end

return operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 30)))
