-- KEYS: number, rows, counters
-- ARGV: name, incarnation (16 hex digits)
-- Returns nothing where there is no such row, else the view's number and all counters.
local found = redis.call('HGET', KEYS[2], ARGV[1])
if not found or string.sub(found, 1, 16) ~= ARGV[2] then
  return false
end
redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
return { redis.call('GET', KEYS[1]), redis.call('HGETALL', KEYS[3]) }
