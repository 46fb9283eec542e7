// The application starts, which is when `synchronize` and `dropSchema` do what they say.
require("./data-source.js").default.initialize().then((dataSource) => dataSource.destroy());
