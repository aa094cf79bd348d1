-- Never more than the node has by the store's own account.
local key, node = KEYS[1], ARGV[1]
local amount = math.min(tonumber(ARGV[2]), tonumber(redis.call('HGET', key, 'node:' .. node) or '0'))
if amount > 0 then
  redis.call('HINCRBY', key, 'lent', string.format('%.0f', -amount))
  redis.call('HINCRBY', key, 'node:' .. node, string.format('%.0f', -amount))
end
return amount
