-- Tokens, claims and failed hand-outs of a session.

-- Returns the slots, or nil when they cannot be read.
local function tokens_kept()
  local read, slots = pcall(unpacked, 'tokens')
  local whole = read and type(slots) == 'table' and type(slots[1]) == 'string' and type(slots[2]) == 'string'
    and type(slots[3]) == 'table'
  return whole and slots or nil
end

-- `history`: how many entries of the chat history are asked for. `assigned`: to a worker that has been assigned.
local function claimed(claim, away_ms, history, assigned)
  local items = tonumber(history) > 0 and redis.call('LRANGE', KEYS[4], 0, -1) or {}
  local hand_outs, state = 0, ''
  if assigned then
    local v = get('hand_outs', 'handed_on')
    hand_outs, state = tonumber(string.match(v[1] or '', '^(%d+) %d+$') or 0), v[2] or ''
  end
  return {'claimed', {unpack(claim, 1, 7)}, head(), away_ms, claim[10] == 1 and 1 or 0, items, shown_streams(), hand_outs, state}
end

-- How often the session has been assigned since a worker last acked something.
local function count_hand_out()
  local v = get('hand_outs', 'up_acked')
  local count, at = string.match(v[1] or '', '^(%d+) (%d+)$')
  set('hand_outs', string.format('%.0f %s', at == v[2] and tonumber(count) + 1 or 1, v[2]))
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

-- When the last claim that was granted had been asked for, and the party's own count of it; nil where it is not known.
local function last_claim(field)
  local claims = claims_kept(field)
  local last = claims[#claims] or {}
  return last[8], last[9]
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
  remember(had, worker, WORKERS_REMEMBERED)
  set('worker_ids', cmsgpack.pack(had))
  redis.call('HINCRBY', key, 'workers', 1)
end

-- Does a party claim too much: further beyond the store than it is believed, or so that no seq would be left?
local function is_ahead(up, down, ahead_max)
  local v = get('up_last', 'down_last')
  for i, known in ipairs({up, down}) do
    local last = tonumber(v[i])
    if known > last and known > math.min(last + tonumber(ahead_max), SEQ_MAX - 1) then
      return true
    end
  end
  return false
end

-- Let `last` of one direction be at least `known` by the word of `party`, but not what a client has sent by its worker's word;
-- see `hear_claim` in session/records.py.
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
    if to > 0 then
      lose_pieces(way)
    end
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

-- Failed hand-outs, as in core/failures --------------------------------------------------------------------------------

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
  local asked_ms = last_claim('worker_claims')
  local held_ms = asked_ms and tonumber(ended_ms) - asked_ms or -1
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

-- Claims --------------------------------------------------------------------------------------------------------------

-- What the worker says that it has of its client's messages, where that is more than is stored; 0: no more.
local function heard()
  return tonumber(get('up_heard')[1] or 0) or 0
end

-- Attach a party here. By what it knows, at least `up` and `down` messages have been in the logs.
local function claim(party, nonce, up, down, asked_ms, attempt, history, assigned)
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
  remember(claims, made, CLAIMS_REMEMBERED)
  set(party .. '_epoch', made[2], party .. '_node', caller, party .. '_claims', cmsgpack.pack(claims))
  wake(v[3], v[4])
  return claimed(made, party == 'client' and away_ms(made, asked_ms) or 0, history, assigned)
end
