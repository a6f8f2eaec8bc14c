-- KEYS: number, rows, counters
-- ARGV: name, incarnation (16 hex digits)
local found = redis.call('HGET', KEYS[2], ARGV[1])
if found and string.sub(found, 1, 16) == ARGV[2] then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('INCR', KEYS[1])
end
return 1
