local key = KEYS[1]
local node, request = ARGV[1], ARGV[2]
local limit, held, least, wish = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
-- Asked again, since the answer was lost: the same answer.
local last, amount = string.match(redis.call('HGET', key, 'request:' .. node) or '', '^(%d+):(%d+)$')
if last == request then return {tonumber(amount), 0} end
-- What the node has and the store does not know of was forgotten, and maybe more that others have.
local known = tonumber(redis.call('HGET', key, 'node:' .. node) or '0')
if known < held then
  redis.call('HINCRBY', key, 'lent', held - known)
  redis.call('HSET', key, 'node:' .. node, string.format('%.0f', held), 'closed', 1)
end
local left = limit - tonumber(redis.call('HGET', key, 'lent') or '0')
local lent = math.min(wish, left)
if lent < least or redis.call('HEXISTS', key, 'closed') == 1 then lent = 0 end
if lent > 0 then
  redis.call('HINCRBY', key, 'lent', string.format('%.0f', lent))
  redis.call('HINCRBY', key, 'node:' .. node, string.format('%.0f', lent))
end
redis.call('HSET', key, 'request:' .. node, request .. ':' .. string.format('%.0f', lent))
if tonumber(ARGV[7]) > 0 then redis.call('EXPIRE', key, ARGV[7]) end
return {lent, math.max(left - lent, 0)}
