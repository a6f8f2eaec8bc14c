-- KEYS: number, rows, counters
-- ARGV: name, incarnation (16 hex digits), row
-- Returns whether the row is there under this incarnation, as 1 or 0.
local found = redis.call('HGET', KEYS[2], ARGV[1])
if not found or string.sub(found, 1, 16) ~= ARGV[2] then
  return 0
end
if string.sub(found, 17) ~= ARGV[3] then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2] .. ARGV[3])
  redis.call('INCR', KEYS[1])
end
return 1
