-- The registry: the event queues of workers and of the cluster. The keys are described in nodes.lua.

-- Places in a queue's record. Events: {{n, type, at_ms, fields, dropped}...}; the count of drops before an event becomes one of its
-- fields where it is read.
local UNTIL, LAST, DROPPED, EVENTS = 1, 2, 3, 4

-- Nil for none, and for one that cannot be read.
local function event_queue(name)
  local read, queue, more = pcall(cmsgpack.unpack, redis.call('HGET', EVENT_QUEUES, name) or '')
  if not read or more ~= nil or type(queue) ~= 'table' or type(queue[EVENTS]) ~= 'table' then
    return nil
  end
  for i = UNTIL, DROPPED do
    if type(queue[i]) ~= 'number' then
      return nil
    end
  end
  for _, event in ipairs(queue[EVENTS]) do
    if type(event) ~= 'table' or type(event[1]) ~= 'number' then
      return nil
    end
  end
  return queue
end

local function drop_queue(name, queue)
  redis.call('HDEL', EVENT_QUEUES, name)
  if queue then
    redis.call('ZREM', ORDER, in_time('qq', queue[UNTIL], name))
  end
end

local function put_queue(name, queue, until_ms)
  redis.call('ZREM', ORDER, in_time('qq', queue[UNTIL], name))
  queue[UNTIL] = until_ms
  redis.call('ZADD', ORDER, 0, in_time('qq', until_ms, name))
  redis.call('HSET', EVENT_QUEUES, name, cmsgpack.pack(queue))
end

-- A queue stays, also an empty one, while there is something that may be told of it.
local function is_kept(name)
  return name == CLUSTER or redis.call('HEXISTS', WORKERS, name) == 1
end

local function check_old_queues(now)
  local last = '(' .. in_time('qq', now + 1, '')
  for _, place in ipairs(redis.call('ZRANGEBYLEX', ORDER, '[qq\0', last, 'LIMIT', 0, QUEUES_CHECKED)) do
    local at, name = of_time(place)
    local queue = event_queue(name)
    redis.call('ZREM', ORDER, place) -- also one that a damaged queue has left behind
    if queue and queue[UNTIL] == at and is_kept(name) then
      put_queue(name, queue, now + EVENTS_LEFT_MS)
    elseif not queue or queue[UNTIL] == at then
      drop_queue(name, queue)
    end
  end
end

-- Puts an event into a queue of `events_max`, if that is not 0, and lets it be due. The last one of a queue always fits.
local function tell_queue(name, what, fields, events_max, now_ms, is_last)
  local most, now = tonumber(events_max), tonumber(now_ms)
  if most <= 0 then
    return
  end
  check_old_queues(now)
  local queue = event_queue(name) or {0, 0, 0, {}}
  if #queue[EVENTS] >= most and not is_last then
    queue[DROPPED] = queue[DROPPED] + 1
  else
    queue[LAST] = queue[LAST] + 1
    table.insert(queue[EVENTS], {queue[LAST], what, now, fields, queue[DROPPED]})
    queue[DROPPED] = 0
  end
  put_queue(name, queue, now + EVENTS_LEFT_MS)
  ask_for('e', name, agenda_item('e', name), now, false)
end

local function leave_queue(name)
  local queue = event_queue(name)
  if queue and #queue[EVENTS] == 0 then
    drop_queue(name, queue)
  end
end

function operation.tell_cluster(once, what, fields, events_max, now_ms)
  local told = {}
  if tonumber(events_max) <= 0 then
    return {'done'}
  end
  for each in string.gmatch(redis.call('HGET', MISC, 'cluster_told') or '', '%S+') do
    if each == once then
      return {'done'}
    end
    told[#told + 1] = each
  end
  remember(told, once, ONCE_REMEMBERED)
  redis.call('HSET', MISC, 'cluster_told', table.concat(told, ' '))
  tell_queue(CLUSTER, what, fields, events_max, now_ms)
  return {'done'}
end

function operation.tell_worker(name, what, fields, events_max, now_ms)
  local queue = event_queue(name)
  for _, event in ipairs(queue and queue[EVENTS] or {}) do
    if event[4] == fields then
      return {'done'}
    end
  end
  if is_kept(name) then
    tell_queue(name, what, fields, events_max, now_ms)
  end
  return {'done'}
end

-- → how many wait, are dropped, then n, type, at_ms, fields and dropped of each; nothing for no queue
function operation.read_queue(name, limit)
  local queue = event_queue(name)
  if not queue then
    return {}
  end
  local reply = {#queue[EVENTS], queue[DROPPED]}
  for i = 1, math.min(tonumber(limit), #queue[EVENTS]) do
    reply[#reply + 1] = queue[EVENTS][i]
  end
  return reply
end

function operation.drop_queue(name, upto)
  local queue = event_queue(name)
  if not queue then
    return 0
  end
  local kept = {}
  for _, event in ipairs(queue[EVENTS]) do
    if event[1] > tonumber(upto) then
      kept[#kept + 1] = event
    end
  end
  if #kept == 0 and not is_kept(name) then
    drop_queue(name, queue)
  elseif #kept < #queue[EVENTS] then
    queue[EVENTS] = kept
    put_queue(name, queue, queue[UNTIL])
  end
  return #kept
end
