-- KEYS: number, rows, counters
-- ARGV: name, incarnation (16 hex digits), counter, number
-- Returns whether the row was taken out, as 1 or 0.
local found = redis.call('HGET', KEYS[2], ARGV[1])
if not found or string.sub(found, 1, 16) ~= ARGV[2] then
  return 0
end
if redis.call('HGET', KEYS[3], ARGV[1]) ~= ARGV[3] or redis.call('GET', KEYS[1]) ~= ARGV[4] then
  return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('INCR', KEYS[1])
return 1
