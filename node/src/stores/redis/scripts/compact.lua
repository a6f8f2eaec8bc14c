-- Settled items and turns go to their lists, the snapshot goes to the log, and the log before it is trimmed: all or
-- nothing. Everything is looked at before anything is written.
--
-- KEYS: log, items, clients, turns
-- ARGV: expected id, expected token, snapshot's id, its token, its bytes, first ordinal to clear from (8 bytes) or '',
--       then four lists, each its length first: items (ordinal, member), clients (id, ordinal), turns (ordinal, bytes),
--       turns to drop (ordinal)
-- Returns 'ok', or 'fenced'.

local types = { 'stream', 'zset', 'hash', 'hash' }
for n, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= types[n] then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is no ' .. types[n])
  end
end

local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last or last[1] ~= ARGV[1] or last[2][2] ~= ARGV[2] then
  return 'fenced'
end

local at = 7
-- The next list, in pieces that the stack takes.
local function pieces(width, call)
  local length = tonumber(ARGV[at])
  local from, to = at + 1, at + length * width
  at = to + 1
  local step = 1000 - 1000 % width
  for first = from, to, step do
    call(unpack(ARGV, first, math.min(first + step - 1, to)))
  end
end

-- What follows an ordinal sorts behind it, and before anything that begins with the next one.
pieces(2, function(...)
  local given = { ... }
  local add = {}
  for n = 1, #given, 2 do
    redis.call('ZREMRANGEBYLEX', KEYS[2], '[' .. given[n], '(' .. given[n] .. string.rep('\255', 16))
    add[n] = 0
    add[n + 1] = given[n + 1]
  end
  redis.call('ZADD', KEYS[2], unpack(add))
end)
pieces(2, function(...) redis.call('HSET', KEYS[3], ...) end)
pieces(2, function(...) redis.call('HSET', KEYS[4], ...) end)
pieces(1, function(...) redis.call('HDEL', KEYS[4], ...) end)

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

redis.call('XADD', KEYS[1], 'NOMKSTREAM', ARGV[3], 't', ARGV[4], 'e', ARGV[5])
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[3])
return 'ok'
