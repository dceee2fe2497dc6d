// What a program in another language does with the client that was generated from the OpenAPI document.
// The types are part of the test: a field that the document does not have does not compile.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const baseUrl = process.env.VPND_URL!;
const as = (token: string) =>
  createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const admin = as(process.env.VPND_ADMIN!);
const reader = as(process.env.VPND_READ!);

const status = await reader.GET("/v1/status");
assert.equal(status.data?.gateway.name, "hq");
const up: string[] | undefined = status.data?.tunnels.map((tunnel) => `${tunnel.name} ${tunnel.state}`);
assert.equal(up?.length, 1);

const listed = await reader.GET("/v1/tunnels", {
  params: { query: { negotiation: ["active", "passive"], text: "BRANCH", limit: 5 } },
});
const tunnel: components["schemas"]["TunnelStatus"] | undefined = listed.data?.tunnels[0];
assert.equal(tunnel?.name, "branch-a");
assert.equal(listed.data?.total, 1);
const bytes: number | undefined = tunnel?.mappings[0]?.bytes_in;
assert.equal(bytes, 0);

const labels: components["schemas"]["GatewayLabelsTable"] = { type: "vpc", vpc: "vpc-1", region: "eu-1" };
assert.equal((await admin.PUT("/v1/gateway", { body: labels })).data?.change, "changed");
assert.equal((await reader.GET("/v1/gateway")).data?.region, "eu-1");
assert.equal((await reader.PUT("/v1/gateway", { body: labels })).error?.error.code, "E-ROLE");
assert.equal((await admin.PUT("/v1/gateway", { body: {} })).data?.change, "changed");

const gateway = { params: { path: { name: "site" } } };
const made = await admin.PUT("/v1/customer-gateways/{name}", { ...gateway, body: { address: "203.0.113.9" } });
assert.equal(made.data?.change, "created");

const table: components["schemas"]["TunnelTable"] = {
  customer_gateway: "site",
  pre_shared_key: "plain:pKz8wTq2mB5vX9cL4nR7jH3gpKz8wTq2",
  routes: ["10.7.0.0/16"],
  negotiation: "passive",
  ike: { version: "ikev2", dh_group: [14, 31] },
};
const path = { params: { path: { name: "made" } } };
assert.equal((await admin.PUT("/v1/tunnels/{name}", { ...path, body: table })).data?.change, "created");
const detail = await reader.GET("/v1/tunnels/{name}", path);
assert.equal(detail.data?.customer_gateway, "site");
assert.ok(!JSON.stringify(detail.data).includes("pKz8"));

const inUse = await admin.DELETE("/v1/customer-gateways/{name}", gateway);
assert.equal(inUse.response.status, 409);
assert.equal(inUse.error?.error.code, "E-IN-USE");
assert.equal(inUse.error?.type, "urn:vpnd:error:E-IN-USE");
assert.equal(inUse.error?.status, 409);

const wrong = await admin.PUT("/v1/tunnels/{name}", { ...path, body: { ...table, routes: ["nonsense"] } });
assert.equal(wrong.error?.error.problems?.[0]?.key, "tunnels.made.routes[0]");

const refused = await reader.POST("/v1/tunnels/{name}/up", { ...path, body: { timeout_s: 1 } });
assert.deepEqual([refused.response.status, refused.error?.error.code], [403, "E-ROLE"]);
assert.equal((await as("vpnd_wrong").GET("/v1/status")).error?.error.code, "E-TOKEN");

const events = await reader.GET("/v1/events", {
  params: { query: { follow: false, event: ["command"] } },
  headers: { Accept: "text/event-stream" },
  parseAs: "text",
});
const said = [...(events.data as unknown as string).matchAll(/^data: (.*)$/gm)].map(
  ([, json]) => JSON.parse(json!) as components["schemas"]["Event"],
);
assert.ok(said.some((event) => event.by?.startsWith("token admin from ")));

assert.equal((await admin.DELETE("/v1/tunnels/{name}", path)).data?.change, "removed");
assert.equal((await admin.DELETE("/v1/customer-gateways/{name}", gateway)).data?.change, "removed");
console.log("done");
