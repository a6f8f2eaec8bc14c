-- KEYS: number, rows, counters
-- Returns the view's number and all rows, as they were at one moment.
return { redis.call('GET', KEYS[1]) or '0', redis.call('HGETALL', KEYS[2]) }
