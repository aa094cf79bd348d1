// An OpenID provider that is not ours, with two keys of which it uses the second: prints its issuer and a token of its own
// making, then serves until its input ends.
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import Provider from "oidc-provider";

const key = (kid, type, options, alg) => {
    const { privateKey } = generateKeyPairSync(type, options);
    return { ...privateKey.export({ format: "jwk" }), kid, alg, use: "sig" };
};
const server = createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const issuer = `http://127.0.0.1:${server.address().port}`;
const resource = { scope: "read", audience: "a", accessTokenFormat: "jwt", jwt: { sign: { alg: "ES256" } } };
const provider = new Provider(issuer, {
    clients: [{ client_id: "alice", client_secret: "secret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] }],
    features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        resourceIndicators: { enabled: true, getResourceServerInfo: () => resource },
    },
    jwks: { keys: [key("r", "rsa", { modulusLength: 2048 }, "RS256"), key("e", "ec", { namedCurve: "P-256" }, "ES256")] },
});
server.on("request", provider.callback());
const answer = await fetch(`${issuer}/token`, {
    method: "POST",
    headers: { authorization: `Basic ${btoa("alice:secret")}`, "content-type": "application/x-www-form-urlencoded" },
    body: "grant_type=client_credentials&scope=read&resource=https%3A%2F%2Fa.test",
});
const { access_token: token, ...rest } = await answer.json();
if (!token) throw new Error(JSON.stringify(rest));
console.log(JSON.stringify({ issuer, token }));
process.stdin.resume().on("end", () => process.exit());
