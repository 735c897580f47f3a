Redoc.init("openapi.json", { disableSearch: false, expandResponses: "200,201,202" },
  document.getElementById("redoc"));
