-- KEYS: number, rows, counters
-- ARGV: name, incarnation (16 hex digits), row
-- A row is its incarnation, 16 hex digits, and the rest. Returns 1, or 0 where a higher incarnation is there.
local found = redis.call('HGET', KEYS[2], ARGV[1])
local there = found and string.sub(found, 1, 16) or ''
if there == ARGV[2] then
  return 1
end
-- Digit by digit: Lua would compare texts by the locale of the server, and numbers above 2^53 not exactly.
for n = 1, #there do
  local left, right = string.byte(there, n), string.byte(ARGV[2], n)
  if left ~= right then
    if left > right then
      return 0
    end
    break
  end
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], 0)
redis.call('INCR', KEYS[1])
return 1
