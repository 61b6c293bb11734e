-- Every operation on one session but the hot ones (append.lua, ack.lua, look.lua), the trail, and jobs (jobs/operations.lua). It
-- follows common.lua, head.lua, events/queue.lua, jobs/jobs.lua, jobs/session.lua, streams.lua, claims.lua and reseed.lua.
--
-- KEYS  1 head  2 log of client → worker  3 log of worker → client  4 chat history  5 jobs  6 pieces of their results  7 streams
--       8 event queue
-- ARGV  1 operation  2 the caller's node  3... the arguments of the function of `operation` that has its name
-- An answer begins with its kind, which replies.py makes a result of.

function operation.create(nonce, principal, want, meta, receipts, token, now_ms, ttl_ms, pair, events_max, settings, rooms,
    asked_until_ms)
  if exists() then
    return find_claim('client_claims', nonce) and {'head', head()} or {'exists'}
  end
  redis.call('DEL', KEYS[5], KEYS[6])
  local epoch = caller ~= '' and 1 or 0
  begin(now_ms, principal, want, meta, receipts, ttl_ms, epoch, caller, {{nonce, epoch, '', 0, 0, 0, 0, tonumber(now_ms)}},
    {token, '', {}}, now_ms)
  if pair == '0' then
    set('pair', 0)
  end
  put_answer(settings, rooms, asked_until_ms)
  begin_events()
  set_events_max(events_max)
  tell_started(caller, principal, want, now_ms)
  touch_all(tonumber(ttl_ms))
  return {'head', head()}
end

function operation.keep_answer(settings, rooms, asked_until_ms)
  if not exists() then
    return {'no_session'}
  end
  put_answer(settings, rooms, asked_until_ms)
  return {'done'}
end

function operation.claim_client(nonce, principal, presented, issued, received, acked, now_ms, ttl_ms, attempt, ahead_max, history,
    events_max)
  if not exists() then
    return {'refused', 'unknown'}
  end
  local before = find_claim('client_claims', nonce)
  if before then
    return claimed(before, away_ms(before, now_ms), history)
  end
  -- Before the token is looked at: another subject with a found token, retired or not, learns and changes nothing.
  local owner = get('principal')[1]
  if owner and owner ~= principal then
    return {'refused', 'principal'}
  end
  local last_ms, last_attempt = last_claim('client_claims')
  if is_late(last_ms, now_ms) then
    return {'refused', 'late'}
  end
  local kept = owner and tokens_kept()
  if not kept then
    set('created_ms', '') -- so that a node that holds a party finds the damage, and gives back what it knows
    return {'refused', 'unreadable'}
  end
  local refused, slots = present(kept, presented, issued, is_tied(last_ms, last_attempt, now_ms, attempt))
  if refused then
    if slots then
      set('tokens', cmsgpack.pack(slots))
    end
    return {'refused', refused}
  end
  local v = get('client_node', 'client_away_ms', 'ttl_ms')
  if v[1] == '' and tonumber(now_ms) - tonumber(v[2]) >= tonumber(v[3]) then
    return {'refused', 'expired'}
  end
  if kept[2] == presented and is_outdone(last_ms, last_attempt, now_ms, attempt) then
    return {'refused', 'late'}
  end
  if is_ahead(tonumber(acked), tonumber(received), ahead_max) then
    return {'refused', 'ahead'}
  end
  set('tokens', cmsgpack.pack(slots), 'ttl_ms', ttl_ms)
  touch_all(tonumber(ttl_ms))
  set_events_max(events_max)
  tell_resumed(v[1] == '' and math.max(0, tonumber(now_ms) - tonumber(v[2])) or 0, now_ms)
  return claim('client', nonce, tonumber(acked), tonumber(received), now_ms, attempt, history)
end

function operation.claim_worker_side(nonce, worker, assign, received, acked, now_ms, ahead_max, history, events_max)
  if not exists() then
    return {'refused', 'unknown'}
  end
  local before = find_claim('worker_claims', nonce)
  if before then
    return claimed(before, 0, history, assign == '1')
  end
  if assign ~= '1' then
    if get('worker')[1] ~= worker then
      return {'refused', 'not_yours'}
    elseif is_late(last_claim('worker_claims'), now_ms) then
      return {'refused', 'late'}
    end
  end
  if is_ahead(tonumber(received), tonumber(acked), ahead_max) then
    return {'refused', 'ahead'}
  end
  if assign == '1' and is_set_aside() then
    return {'refused', 'set_aside'}
  end
  set_events_max(events_max)
  if assign == '1' then
    local last = tonumber(get('down_last')[1])
    set('worker', worker, 'worker_state', 'assigned', 'said_before', math.max(last, tonumber(acked)))
    count_worker(worker)
    move_jobs(now_ms)
    count_hand_out()
    find_streams(tonumber(get('worker_epoch')[1]) + 1)
  end
  return claim('worker', nonce, tonumber(received), tonumber(acked), now_ms, 0, history, assign == '1')
end

function operation.accept(epoch, now_ms)
  local v = get('worker_epoch', 'worker_node', 'worker_state', 'client_node')
  if not v[1] then
    return exists() and {'behind', 0} or {'no_session'}
  end
  if v[1] ~= epoch or v[2] ~= caller then
    return {'fenced', tonumber(v[1])}
  end
  if v[3] ~= 'paired' then
    set('worker_state', 'paired')
    redis.call('HDEL', key, 'handed_on')
    tell_paired(now_ms)
    wake(v[4])
  end
  return {'done'}
end

-- Answers for a node that writes for the worker without holding it; nil for the one that does.
local function not_holder(epoch)
  local v = get('worker_epoch', 'worker_node')
  if not v[1] then
    return exists() and {'behind', 0} or {'no_session'}
  end
  local held = tonumber(v[1])
  if tonumber(epoch) > held then
    return {'behind', held}
  end
  return (tonumber(epoch) < held or v[2] ~= caller) and {'fenced', held} or nil
end

function operation.hand_on(epoch, state)
  local refused = not_holder(epoch)
  if not refused then
    set('handed_on', state)
  end
  return refused or {'done'}
end

-- `failures_max` and what follows it come with a hand-out that has failed only.
local function unpair(worker, epoch, failures_max, now_ms, ended_ms, jobs_failures_max)
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
      if jobs_failures_max ~= '0' then
        lose_worker(jobs_failures_max, now_ms)
      end
    end
    set('worker', '', 'worker_state', '', 'worker_node', '', 'worker_epoch', math.max(asked, held) + 1)
    wake(v[3], v[4])
  end
  return {'done'}
end

function operation.unpair(worker, epoch)
  return unpair(worker, epoch)
end

function operation.unpair_failed(worker, epoch, failures_max, now_ms, ended_ms, jobs_failures_max)
  local answer = unpair(worker, epoch, failures_max, now_ms, ended_ms, jobs_failures_max)
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
      tell_away(now_ms)
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

-- The first item of the chat history of an ended session: `P` and {principal, worker, until_ms}. Nothing else tells of that session.
local function keep_history(now_ms, keep_ms)
  local v = get('principal', 'worker', 'history_bytes')
  assert(v[1] and v[2])
  local until_ms = tonumber(now_ms) + tonumber(keep_ms)
  redis.call('LPUSH', KEYS[4], 'P' .. cmsgpack.pack({v[1], v[2], until_ms}))
  redis.call('PEXPIRE', KEYS[4], string.format('%.0f', tonumber(keep_ms) + OVER_MS))
  return tonumber(v[3])
end

-- → the items of the chat history of an ended session, as far as `now_ms` and access (core/callers.py) allow it; or a refusal
local function read_past(kind, text, now_ms)
  local items = redis.call('LRANGE', KEYS[4], 0, -1)
  local first = table.remove(items, 1)
  if not first or string.sub(first, 1, 1) ~= 'P' then
    return {'no_session'}
  end
  local read, past = pcall(cmsgpack.unpack, string.sub(first, 2))
  if not read or type(past) ~= 'table' or type(past[3]) ~= 'number' or past[3] <= tonumber(now_ms) then
    return {'no_session'}
  elseif not allows(kind, text, past[1], past[2]) then
    return {'refused', 'access'}
  end
  return {'history', items}
end

local function finish(now_ms, keep_ms, reason)
  local closed, interrupted = pcall(close_all_streams, now_ms)
  local read, was = pcall(head)
  if not read then
    redis.call('DEL', unpack(KEYS, 1, 7))
    end_events(now_ms, reason)
    return {'no_session'}
  end
  if was[HEAD.jobs] and not pcall(finish_jobs, now_ms) then
    redis.call('DEL', KEYS[5], KEYS[6])
  end
  local counted, events = pcall(end_events, now_ms, reason, was)
  local kept, history_bytes = false, nil
  if keep_ms ~= '0' then
    kept, history_bytes = pcall(keep_history, now_ms, keep_ms)
  end
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[7])
  if not kept then
    redis.call('DEL', KEYS[4])
  end
  wake(was[HEAD.client_node], was[HEAD.worker_node])
  return {'ended', was, closed and interrupted or {}, kept and history_bytes or -1, counted and events or 0}
end

function operation.finish(now_ms, keep_ms, reason)
  return exists() and finish(now_ms, keep_ms, reason) or {'no_session'}
end

-- ARGV 7...: the live nodes
function operation.expire(now_ms, ttl_ms, keep_ms, reason)
  local v = get('client_node', 'client_away_ms')
  if not v[1] then
    return exists() and {'behind', 0} or {'done'}
  end
  if v[1] == '' then
    return tonumber(now_ms) - tonumber(v[2]) >= tonumber(ttl_ms) and finish(now_ms, keep_ms, reason) or {'done'}
  end
  for i = 7, #ARGV do
    if ARGV[i] == v[1] then
      return {'done'}
    end
  end
  return finish(now_ms, keep_ms, reason)
end

-- → head, when the client has attached last, since when it is detached
function operation.read(kind, text)
  if not exists() then
    return {'no_session'}
  elseif not is_allowed(kind, text) then
    return {'refused', 'access'}
  end
  local now = head()
  local connected_ms = 0
  if now[HEAD.client_epoch] ~= '0' then
    connected_ms = last_claim('client_claims') or tonumber(now[HEAD.created_ms])
  end
  return {'read', now, connected_ms, tonumber(get('client_away_ms')[1])}
end

function operation.history(kind, text, now_ms)
  if not exists() then
    return read_past(kind, text, now_ms)
  elseif not is_allowed(kind, text) then
    return {'refused', 'access'}
  end
  return {'history', redis.call('LRANGE', KEYS[4], 0, -1)}
end

function operation.streams()
  return {'streams', shown_streams()}
end

function operation.cancel_stream(way, name, reason, kind, text)
  if not exists() then
    return {'no_session'}
  elseif not is_allowed(kind, text) then
    return {'refused', 'access'}
  end
  local stream = stream_of(way, name)
  if not stream then
    return {'no_stream'}
  end
  if stream[STREAM.outcome] == '' and stream[STREAM.cancel] == 0 then
    stream[STREAM.cancel], stream[STREAM.reason] = 1, reason
    save_stream(stream)
    tell_change()
    local v = get('client_node', 'worker_node')
    wake(v[1], v[2])
  end
  return {'done'}
end

-- ARGV 6...: the names of streams
function operation.close_streams(epoch, outcome, now_ms)
  local refused = not_holder(epoch)
  if refused then
    return refused
  end
  local closed = false
  for i = 6, #ARGV do
    local stream = stream_of('down', ARGV[i])
    if stream and stream[STREAM.found] > 0 and stream[STREAM.outcome] == '' then
      close_stream(stream, outcome, now_ms)
      closed = true
    end
  end
  if closed then
    wake(get('client_node')[1])
  end
  return {'streams', shown_streams()}
end

return operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 30)))
