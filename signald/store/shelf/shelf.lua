-- The operations on a shelf: the twin of rules.py. It follows common.lua.
--
-- KEYS[1]  a hash: `i<blob>` what is kept of a blob (ITEM), `k<digest of a key>` the blob that has it, `n` how many blobs there are,
--          `s` the sum of their bytes
-- KEYS[2]  blobs with a lease, by its end
-- KEYS[3]  blobs without one, by the time until which they are kept; 0: doomed
-- ARGV  1 operation  2 nothing  3... the arguments of the function of `operation` that has its name
-- An answer begins with its kind, which replies.py makes a result of.
local ITEMS, LEASES, TIMES = KEYS[1], KEYS[2], KEYS[3]

-- Items are lists, packed, each behind the beginning of a digest of it and its blob; a later release may add to their ends.
local function seal(blob, packed)
  return string.sub(redis.sha1hex(blob .. packed), 1, SEAL_LETTERS)
end

-- An item; nil when there is none or it cannot be read, and whether it is there.
local function read_item(blob)
  local kept = redis.call('HGET', ITEMS, 'i' .. blob)
  local packed = kept and string.sub(kept, SEAL_LETTERS + 1)
  if not kept or string.sub(kept, 1, SEAL_LETTERS) ~= seal(blob, packed) then
    return nil, kept and true
  end
  local read, item = pcall(cmsgpack.unpack, packed)
  return read and type(item) == 'table' and #item >= ITEM_COUNT and item or nil, true
end

local function is_lapsed(item, now_ms)
  return item[ITEM.lease_until_ms] <= now_ms or item[ITEM.leased_ms] - now_ms > CLOCK_SET_MS
end

-- It is kept no longer, or its lease has lapsed.
local function is_over(item, now_ms)
  if item[ITEM.doomed] == 1 then
    return true
  elseif item[ITEM.digest] ~= '' then
    return item[ITEM.until_ms] <= now_ms
  end
  return is_lapsed(item, now_ms)
end

local function set_totals(count, size)
  redis.call('HSET', ITEMS, 'n', string.format('%.0f', count), 's', string.format('%.0f', size))
end

-- Recounts, after damage: an unreadable record has no bytes and no key.
local function recount()
  local count, size, keys, held = 0, 0, {}, {}
  local all = redis.call('HGETALL', ITEMS)
  for place = 1, #all, 2 do
    local what, name = string.match(all[place], '^([ik])(.*)$')
    if what == 'i' then
      local item = read_item(name)
      count, size = count + 1, size + (item and item[ITEM.bytes] or 0)
      if item then
        held[item[ITEM.key]] = name
      end
    elseif what == 'k' then
      keys[#keys + 1] = name
    end
  end
  for _, key in ipairs(keys) do
    if not held[key] then
      redis.call('HDEL', ITEMS, 'k' .. key)
    end
  end
  set_totals(count, size)
  return count, size
end

local function totals()
  local kept = redis.call('HMGET', ITEMS, 'n', 's')
  if not kept[1] and not kept[2] then
    return 0, 0
  end
  local count, size = tonumber(kept[1] or nil), tonumber(kept[2] or nil)
  if not count or not size or count < 0 or size < 0 then
    return recount()
  end
  return count, size
end

-- Writes an item in one command with what is counted, so that a script that is cut short leaves no wrong sum. `before` are the bytes
-- for which it counted, nil for a new one; `key` leads to it from now on, unless it is empty.
local function write(blob, item, before, key)
  local count, size = totals()
  local is_there = redis.call('HEXISTS', ITEMS, 'i' .. blob) == 1
  local packed = cmsgpack.pack(item)
  local words = {'i' .. blob, seal(blob, packed) .. packed, 'n', string.format('%.0f', count + (is_there and 0 or 1)),
    's', string.format('%.0f', size + item[ITEM.bytes] - (before or 0))}
  if key ~= '' then
    words[7], words[8] = 'k' .. key, blob
  end
  redis.call('HSET', ITEMS, unpack(words))
  if is_there == (before == nil) then
    recount() -- its bytes were not known, because it was damaged
  end
end

-- Enters an item by its time, which it returns.
local function enter(blob, item)
  local due = item[ITEM.lease_until_ms]
  if due > 0 then
    redis.call('ZADD', LEASES, due, blob)
  else
    due = item[ITEM.doomed] == 1 and 0 or item[ITEM.until_ms]
    redis.call('ZADD', TIMES, due, blob)
    redis.call('ZREM', LEASES, blob)
  end
  return due
end

-- Keeps the shelf for long after `due`. Should no sweep come any more, it goes by itself then.
local function stay(due, now_ms)
  local left = math.max(redis.call('PTTL', ITEMS), math.max(due, now_ms) - now_ms + UNSWEPT_MS)
  for _, key in ipairs(KEYS) do
    if redis.call('PTTL', key) < left then
      redis.call('PEXPIRE', key, string.format('%.0f', left))
    end
  end
end

-- Saves an item that is not doomed. A script that is cut short leaves an entry that a sweep corrects.
local function save(blob, item, before, key, now_ms)
  local due = enter(blob, item)
  write(blob, item, before, key)
  stay(due, now_ms)
end

-- Dooms a blob and frees its key. `late`: nothing writes in the media any more. Cut short, it is doomed, and swept at its time.
local function doom(blob, item, before, late, now_ms)
  local key = item[ITEM.key]
  if key ~= '' and redis.call('HGET', ITEMS, 'k' .. key) == blob then
    redis.call('HDEL', ITEMS, 'k' .. key)
  end
  item[ITEM.key], item[ITEM.doomed] = '', 1
  if late then
    item[ITEM.lease_until_ms] = 0
  end
  write(blob, item, before, '')
  stay(enter(blob, item), now_ms)
end

-- When the shelf is to be swept, beside `told` doomed blobs; 0: never.
local function next_due(told, now_ms)
  if #redis.call('ZRANGEBYSCORE', TIMES, 0, 0, 'LIMIT', told, 1) > 0 then
    return now_ms
  end
  local lease = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
  local time = redis.call('ZRANGEBYSCORE', TIMES, '(0', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  lease, time = lease and tonumber(lease) + LATE_MS, time and tonumber(time)
  return math.min(lease or time or 0, time or lease or 0)
end

-- When a full shelf is worth another try; 0: never.
local function next_room(now_ms)
  local due = next_due(0, now_ms)
  local lease = redis.call('ZRANGE', LEASES, 0, 0, 'WITHSCORES')[2]
  return lease and tonumber(lease) > now_ms and math.min(due, now_ms + UPLOAD_RETRY_MS) or due
end

-- The blob as replies.py takes it.
local function shown(kind, blob, item)
  return {kind, blob, unpack(item, 1, SHOWN_COUNT)}
end

-- The item of an upload; nil when it is doomed or another's.
local function uploading(blob, nonce)
  local item = read_item(blob)
  return item and item[ITEM.doomed] == 0 and item[ITEM.nonce] == nonce and item or nil
end

function operation.begin_blob(blob, nonce, key, reserved, total_max, lease_ms, now_ms, session, principal, content_type)
  local known = read_item(blob)
  if known then
    if known[ITEM.doomed] == 1 or known[ITEM.nonce] ~= nonce then
      return {'gone'}
    end
    return known[ITEM.digest] ~= '' and shown('kept', blob, known) or {'begun'}
  end
  reserved, now_ms = tonumber(reserved), tonumber(now_ms)
  local name = key ~= '' and redis.call('HGET', ITEMS, 'k' .. key)
  local other = name and read_item(name)
  if other and other[ITEM.digest] ~= '' and other[ITEM.until_ms] > now_ms then
    return shown('kept', name, other)
  elseif other and other[ITEM.digest] == '' and not is_lapsed(other, now_ms) then
    return {'in_progress', other[ITEM.lease_until_ms] - now_ms}
  end
  local count, size = totals()
  if count >= BLOBS_MAX or size + reserved > tonumber(total_max) then
    return {'full', size, next_room(now_ms)}
  end
  if other then
    doom(name, other, other[ITEM.bytes], false, now_ms)
  end
  local until_ms = now_ms + tonumber(lease_ms)
  save(blob, {session, principal, reserved, content_type, '', now_ms, 0, nonce, key, now_ms, until_ms, 0}, nil, key, now_ms)
  return {'begun'}
end

function operation.renew_blob(blob, nonce, lease_ms, now_ms)
  local item = uploading(blob, nonce)
  if not item then
    return {'no_blob'}
  elseif item[ITEM.digest] == '' then
    now_ms = tonumber(now_ms)
    item[ITEM.leased_ms], item[ITEM.lease_until_ms] = now_ms, now_ms + tonumber(lease_ms)
    save(blob, item, item[ITEM.bytes], '', now_ms)
  end
  return {'done'}
end

function operation.finish_blob(blob, nonce, size, sha256, until_ms, now_ms)
  local item = uploading(blob, nonce)
  if not item then
    return {'no_blob'}
  elseif item[ITEM.digest] == '' then
    local before = item[ITEM.bytes]
    item[ITEM.bytes], item[ITEM.digest], item[ITEM.until_ms] = tonumber(size), sha256, tonumber(until_ms)
    item[ITEM.lease_until_ms] = 0
    save(blob, item, before, '', tonumber(now_ms))
  end
  return shown('kept', blob, item)
end

function operation.abandon_blob(blob, nonce, now_ms)
  local item = uploading(blob, nonce)
  if not item then
    return {'done'}
  elseif item[ITEM.digest] ~= '' then
    return shown('kept', blob, item)
  end
  doom(blob, item, item[ITEM.bytes], false, tonumber(now_ms))
  return {'done'}
end

function operation.read_blob(blob, now_ms)
  local item, is_there = read_item(blob)
  if not item and is_there then
    return {'damaged', blob}
  elseif not item or item[ITEM.digest] == '' then
    return {'no_blob'}
  elseif item[ITEM.doomed] == 1 or item[ITEM.until_ms] <= tonumber(now_ms) then
    return {'gone'}
  end
  return shown('read', blob, item)
end

function operation.remove_blob(blob, now_ms)
  local item = read_item(blob)
  if not item or item[ITEM.digest] == '' then
    return {'no_blob'}
  end
  -- Also one that is doomed: a script that was cut short may not have entered it.
  doom(blob, item, item[ITEM.bytes], false, tonumber(now_ms))
  return {'done'}
end

-- → doomed blobs, when the next sweep is due, and which blobs could not be read
function operation.sweep_shelf(now_ms, limit)
  now_ms, limit = tonumber(now_ms), tonumber(limit)
  local late, ahead = string.format('%.0f', now_ms - LATE_MS), string.format('(%.0f', now_ms + CLOCK_SET_MS)
  local over = redis.call('ZRANGEBYSCORE', LEASES, '-inf', late, 'LIMIT', 0, limit)
  for _, blob in ipairs(redis.call('ZRANGEBYSCORE', LEASES, ahead, '+inf', 'LIMIT', 0, limit - #over)) do
    over[#over + 1] = blob
  end
  for _, blob in ipairs(redis.call('ZRANGEBYSCORE', TIMES, '(0', now_ms, 'LIMIT', 0, limit)) do
    over[#over + 1] = blob
  end
  local damaged = {}
  for _, blob in ipairs(over) do
    local item = read_item(blob)
    if not item then
      -- Nothing is known of it but its id, by which its bytes are found.
      damaged[#damaged + 1] = blob
      doom(blob, {'', '', 0, '', '', 0, 0, '', '', 0, 0, 0}, nil, true, now_ms)
    elseif is_over(item, now_ms) then
      doom(blob, item, item[ITEM.bytes], true, now_ms)
    else
      enter(blob, item)
    end
  end
  local doomed = redis.call('ZRANGEBYSCORE', TIMES, 0, 0, 'LIMIT', 0, limit)
  return {'swept', doomed, next_due(#doomed, now_ms), damaged}
end

-- ARGV 4...: blobs
function operation.forget_blobs(now_ms)
  local is_less = false
  for place = 4, #ARGV do
    local blob = ARGV[place]
    local item = read_item(blob)
    if item and item[ITEM.doomed] == 1 or not item and redis.call('ZSCORE', TIMES, blob) == '0' then
      local count, size = totals()
      redis.call('HDEL', ITEMS, 'i' .. blob)
      if item then
        set_totals(count - 1, size - item[ITEM.bytes])
      else
        recount()
      end
      redis.call('ZREM', LEASES, blob)
      redis.call('ZREM', TIMES, blob)
      is_less = true
    end
  end
  if is_less and totals() <= 0 and recount() == 0 then
    redis.call('DEL', ITEMS, LEASES, TIMES)
  end
  return {'swept', {}, next_due(0, tonumber(now_ms)), {}}
end

return operation[ARGV[1]](unpack(ARGV, 3, math.min(#ARGV, 12)))
