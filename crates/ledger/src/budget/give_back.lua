local key, node, request = KEYS[1], ARGV[1], ARGV[2]
-- Asked again, since the answer was lost: it is done.
if tonumber(redis.call('HGET', key, 'back:' .. node) or '0') >= tonumber(request) then return {0} end
-- Never more than the node has by the store's own account.
local amount = math.min(tonumber(ARGV[3]), tonumber(redis.call('HGET', key, 'node:' .. node) or '0'))
if amount > 0 then
  redis.call('HINCRBY', key, 'lent', string.format('%.0f', -amount))
  redis.call('HINCRBY', key, 'node:' .. node, string.format('%.0f', -amount))
  redis.call('HSET', key, 'back:' .. node, request)
end
return {amount}
