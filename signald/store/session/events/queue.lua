-- The event queue of a session during one step: the twin of keeping.py. It follows head.lua.
--
-- KEYS[8]  a hash: `h` the record of the queue (QUEUE), `<n>` an event, packed as `core.life.Event`
-- It outlives the session. A queue that cannot be read gives way to a new one, and an event that cannot be read counts as one that waits.
local queue_key = KEYS[8]

-- The record of the queue; nil when it cannot be read, or there is none.
local function read_queue()
  local packed = redis.pcall('HGET', queue_key, 'h')
  local read, queue, more = pcall(cmsgpack.unpack, packed)
  if not read or type(queue) ~= 'table' or more ~= nil then
    return nil
  end
  for i = 1, #QUEUE_KINDS do
    local kind = string.sub(QUEUE_KINDS, i, i)
    if type(queue[i]) ~= (kind == 'n' and 'number' or kind == 's' and 'string' or 'table') then
      return nil
    end
  end
  return queue
end

-- What the record says of how many events may wait; 0: the session is not told.
local function told_max()
  return tonumber(get('events_max')[1] or 0) or 0
end

-- The queue of a session that is there.
local function open_queue()
  local queue = read_queue()
  local v = get('events', 'events_max', 'worker', 'worker_state', 'created_ms')
  if not queue then
    redis.call('DEL', queue_key)
    queue = {0, 0, 0, 0, v[4] == 'paired' and v[3] or '', 0, tonumber(v[5]), {}}
  end
  -- The numbers that a lost queue has given are not given again: each had raised `events`.
  queue[QUEUE.last] = math.max(queue[QUEUE.last], tonumber(v[1] or 0) or 0)
  queue[QUEUE.events_max] = tonumber(v[2] or 0) or 0
  return queue
end

local function save_queue(queue)
  redis.call('HSET', queue_key, 'h', cmsgpack.pack(queue))
  -- Each time: an earlier release that keeps the session alive does not renew what it does not know.
  expire_with_head(queue_key)
end

-- Adds an event; in a full queue it is dropped and counted, unless it is added `always`.
local function add_event(queue, kind, at_ms, fields, always)
  at_ms = tonumber(at_ms)
  queue[QUEUE.seen_ms] = at_ms ~= 0 and at_ms or queue[QUEUE.seen_ms]
  if not always and queue[QUEUE.waiting] >= queue[QUEUE.events_max] then
    queue[QUEUE.dropped] = queue[QUEUE.dropped] + 1
  else
    local n = queue[QUEUE.last] + 1
    queue[QUEUE.last], queue[QUEUE.waiting] = n, queue[QUEUE.waiting] + 1
    if queue[QUEUE.dropped] > 0 then
      fields.dropped, queue[QUEUE.dropped] = queue[QUEUE.dropped], 0
    end
    redis.call('HSET', queue_key, n, cmsgpack.pack({n, kind, queue[QUEUE.seen_ms], fields}))
  end
  save_queue(queue)
end

local function add_told(queue, kind, at_ms, fields)
  add_event(queue, kind, at_ms, fields)
  set('events', queue[QUEUE.last])
end

local function tell(kind, at_ms, fields)
  if told_max() > 0 then
    add_told(open_queue(), kind, at_ms, fields)
  end
end

-- The steps that are told ---------------------------------------------------------------------------------------------

-- A session begins or is given back: waiting events of an earlier session with its id are still told, and the numbers go on.
local function begin_events()
  local queue = read_queue()
  if queue and queue[QUEUE.last] > 0 then
    set('events', queue[QUEUE.last])
  end
end

-- A node knows `events` and `events_max` of the head as these.
local function learn_events(known, known_max)
  local v = get('events', 'events_max', 'worker', 'worker_state')
  local last, most = tonumber(v[1] or 0) or 0, tonumber(v[2] or 0) or 0
  if known > last then
    set('events', known)
  end
  if most == 0 and known_max > 0 then
    most = known_max
    set('events_max', most)
  end
  if most > 0 then
    local queue = open_queue()
    if v[4] == 'paired' then
      queue[QUEUE.worker] = v[3] -- its pairing was told before the loss
    end
    save_queue(queue)
  end
end

local function set_events_max(events_max)
  if told_max() ~= tonumber(events_max) then
    set('events_max', events_max)
    save_queue(open_queue())
  end
end

local function tell_started(node, principal, want, at_ms)
  local fields = {node = node}
  local tenant, subject = string.match(principal, TENANT_AND_SUBJECT)
  if tenant then
    fields.tenant = tenant
  end
  if principal ~= '' then
    fields.subject = subject or principal
  end
  if want ~= '{}' then
    fields.want = want
  end
  tell('session.started', at_ms, fields)
end

local function tell_paired(at_ms)
  if told_max() == 0 then
    return
  end
  local queue, worker = open_queue(), get('worker')[1]
  local previous = queue[QUEUE.worker]
  queue[QUEUE.worker] = worker
  if previous == '' or previous == worker then
    add_told(queue, 'session.paired', at_ms, {worker = worker})
  else
    add_told(queue, 'session.reassigned', at_ms, {worker = worker, previous = previous})
  end
end

local function tell_away(at_ms)
  if told_max() > 0 then
    local queue = open_queue()
    queue[QUEUE.away] = 1
    add_told(queue, 'session.away', at_ms, {node = caller})
  end
end

-- `away_ms`: how long the client had been detached. A handover without a gap tells nothing.
local function tell_resumed(away_ms, at_ms)
  local queue = told_max() > 0 and open_queue()
  if queue and queue[QUEUE.away] == 1 then
    queue[QUEUE.away] = 0
    add_told(queue, 'session.resumed', at_ms, {node = caller, away_ms = away_ms})
  end
end

local function code_of(failure)
  local read, said = pcall(cjson.decode, failure)
  local code = read and type(said) == 'table' and said.code
  return type(code) == 'string' and code ~= '' and code or nil
end

local function tell_job(job, at_ms)
  if told_max() > 0 then
    local session = string.gsub(string.sub(key, ID_FROM, -2), '^s_', '')
    tell('job.ended', at_ms, {job = string.format('j_%s_%.0f', session, job[JOB.n]), kind = job[JOB.kind],
      state = job[JOB.state], attempt = job[JOB.attempt], error = code_of(job[JOB.error])})
  end
end

-- The session ends: tells it, and lets the queue go once it is empty, or its time is over. `was` is the head; when that is damaged, or nil
-- because there is nothing to be read, the queue says whether the session is told.
-- → how many events wait
local function end_events(now_ms, reason, was)
  was = was and is_whole(was) and was
  local told = was and told_max() > 0
  local queue
  if told then
    queue = open_queue()
  else
    queue = read_queue()
  end
  if not queue then
    redis.call('DEL', queue_key)
    return 0
  end
  if told or not was and queue[QUEUE.events_max] > 0 then
    local fields = {reason = reason}
    if was then
      local at_ms = now_ms ~= '0' and tonumber(now_ms) or queue[QUEUE.seen_ms]
      fields.duration_ms = math.max(0, at_ms - tonumber(was[HEAD.created_ms]))
      fields.up, fields.down = tonumber(was[HEAD.up_last]), tonumber(was[HEAD.down_last])
    end
    add_event(queue, 'session.ended', now_ms, fields, true)
    if was then
      was[HEAD.events] = string.format('%.0f', queue[QUEUE.last])
    end
  end
  if queue[QUEUE.waiting] == 0 then
    redis.call('DEL', queue_key)
  else
    redis.call('PEXPIRE', queue_key, EVENTS_LEFT_MS)
  end
  return queue[QUEUE.waiting]
end
