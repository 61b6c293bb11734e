"use strict";
// A server of S3 on loopback: `node server.js DIRECTORY BUCKET` prints its port, and ends with its standard input.
const S3rver = require("s3rver");

const [directory, bucket] = process.argv.slice(2);
const server = new S3rver({ address: "127.0.0.1", port: 0, silent: true, directory, configureBuckets: [{ name: bucket }] });
server.run().then((address) => console.log(address.port));
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
