-- Before every script but the hot ones: what the aggregates have in common. Words in capitals are put in from Python (lua.py).
--
-- ARGV  1 operation  2 the caller's node  3... the arguments of the function of `operation` that has its name
local caller = ARGV[2]
local operation = {}

-- Tells `node` what to look at, unless it is the caller itself.
local function wake_node(node, what)
  if node and node ~= '' and node ~= caller then
    redis.call('PUBLISH', CHANNEL .. node, what)
  end
end

-- Adds to a list of which the last `most` are kept.
local function remember(list, item, most)
  list[#list + 1] = item
  if #list > most then
    table.remove(list, 1)
  end
end

-- Tokens, as in core/tokens ---------------------------------------------------------------------------------------------

local function retire(retired, token)
  if token ~= '' then
    remember(retired, token, RETIRED_MAX)
  end
end

-- Returns the reason of a refusal, or nil; and the slots to keep, where they have changed.
-- Equal strings are one object in Lua, so `==` compares addresses: it takes the same time whatever they hold.
local function present(slots, presented, issued, tied)
  local current, previous, retired = slots[1], slots[2], slots[3]
  for _, old in ipairs(retired) do
    if old == presented and tied then
      return 'late'
    elseif old == presented then
      retire(retired, previous)
      retire(retired, current)
      return 'token_reuse', {'', '', retired}
    end
  end
  if current == '' then
    -- A record that a node gave back without its tokens has none, which says nothing of a revocation.
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

-- Lateness, as in `Side` of claims.py -----------------------------------------------------------------------------------
--
-- `last_ms` and `last_attempt` are of the last claim that was granted, or nil; `asked_ms` and `attempt` of the claim that is judged.

-- The last claim had been asked for after this one.
local function is_late(last_ms, asked_ms)
  local before_ms = last_ms and last_ms - tonumber(asked_ms) or 0
  return before_ms > 0 and before_ms <= CLOCK_SET_MS
end

-- The last claim is a later attempt of the party. Earlier releases keep no attempt, and a party that does not count says 0.
local function is_earlier(last_attempt, attempt)
  return type(last_attempt) == 'number' and tonumber(attempt) > 0 and tonumber(attempt) < last_attempt
end

-- The last claim is a later attempt of the party, asked for in the same moment.
local function is_tied(last_ms, last_attempt, asked_ms, attempt)
  return is_earlier(last_attempt, attempt) and tonumber(asked_ms) == last_ms
end

-- The last claim is a later attempt of the party, of not long ago.
local function is_outdone(last_ms, last_attempt, asked_ms, attempt)
  return is_earlier(last_attempt, attempt) and math.abs(tonumber(asked_ms) - last_ms) <= CLOCK_SET_MS
end

