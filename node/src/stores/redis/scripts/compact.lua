-- Settled items and turns go to their lists, the snapshot goes to the log, and the log before it is trimmed: all or
-- nothing. Everything is looked at before anything is written.
--
-- KEYS: log, items, clients, turns
-- ARGV: expected id, expected token, snapshot's id, its token, its bytes, first ordinal to clear from (8 bytes) or '',
--       how large a block may become by joining, then the clients (their number, then each id and ordinal), then for
--       items and turns each: 'above' or 'replace', and two lists, each its length first: first ordinals of the blocks
--       that go, and blocks that come (see `blocks`)
-- Returns 'ok', 'fenced', 'look' where what lies above does not, or 'type' and a key of another type.

local types = { 'stream', 'zset', 'hash', 'zset' }
for n, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= types[n] then
    return 'type ' .. key
  end
end

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= ARGV[1] or last[2][2] ~= ARGV[2] then
  return 'fenced'
end

-- Lua would compare texts by the locale of the server.
local function less(a, b)
  for n = 1, 8 do
    local left, right = string.byte(a, n), string.byte(b, n)
    if left ~= right then
      return left < right
    end
  end
  return false
end

local at = 8
-- Where the next list begins and ends.
local function span(width)
  local from = at + 1
  at = from + tonumber(ARGV[at]) * width
  return from, at - 1
end

local clients_from, clients_to = span(2)
local lists = {}
for n, key in ipairs({ KEYS[2], KEYS[4] }) do
  local list = { key = key }
  local above = ARGV[at] == 'above'
  at = at + 1
  list.removed_from, list.removed_to = span(1)
  list.added_from, list.added_to = span(1)
  local first = ARGV[list.added_from]
  if above and list.added_from <= list.added_to then
    local there = redis.call('ZREVRANGEBYLEX', key, '+', '-', 'LIMIT', 0, 1)[1]
    if there then
      if string.byte(there, 9) ~= 2 or not less(string.sub(there, 10, 17), first) then
        return 'look'
      end
      if #there + #first <= tonumber(ARGV[7]) then
        list.joins = string.sub(there, 1, 8)
        first = string.sub(there, 1, 9) .. string.sub(first, 10, 17) .. string.sub(there, 18) .. string.sub(first, 18)
      end
    end
  end
  list.first = first
  lists[n] = list
end

local below = ARGV[6]
if below ~= '' then
  redis.call('ZREMRANGEBYLEX', KEYS[2], '[' .. below, '+')
  redis.call('UNLINK', KEYS[4])
  local clients = redis.call('HGETALL', KEYS[3])
  for n = 1, #clients, 2 do
    if not less(clients[n + 1], below) then
      redis.call('HDEL', KEYS[3], clients[n])
    end
  end
end

-- In pieces that the stack takes.
for from = clients_from, clients_to, 1000 do
  redis.call('HSET', KEYS[3], unpack(ARGV, from, math.min(from + 999, clients_to)))
end

-- What follows an ordinal sorts behind it, and before anything that begins with the next one.
local function remove(key, first)
  redis.call('ZREMRANGEBYLEX', key, '[' .. first, '(' .. first .. string.rep('\255', 16))
end

for _, list in ipairs(lists) do
  if list.joins then
    remove(list.key, list.joins)
  end
  for n = list.removed_from, list.removed_to do
    remove(list.key, ARGV[n])
  end
  for n = list.added_from, list.added_to do
    redis.call('ZADD', list.key, 0, n == list.added_from and list.first or ARGV[n])
  end
end

redis.call('XADD', KEYS[1], 'NOMKSTREAM', ARGV[3], 't', ARGV[4], 'e', ARGV[5])
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[3])
return 'ok'
