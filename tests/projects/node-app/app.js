const semver = require("semver");
const which = require("which");

console.log(semver.inc("1.2.3", "minor"), which.sync("sh"));
