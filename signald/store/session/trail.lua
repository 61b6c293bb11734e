-- Mark: what is known of a session's life. It is kept beyond the session's end, so it is none of its keys.
--
-- KEYS  1 trail
-- ARGV  1 how many steps are kept  2 for how long (ms)  3... steps
for i = 3, #ARGV do
  redis.call('RPUSH', KEYS[1], ARGV[i])
end
redis.call('LTRIM', KEYS[1], -ARGV[1], -1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {'done'}
