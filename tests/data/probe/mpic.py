"""An Open MPIC service from its makers' own parts (PyPI: open-mpic-core), for tests.

perspective SOCKET               a perspective: checks what the coordinator sends it, from where it was started
coordinator PORT DIRECTORY KEY   the coordinator, over TLS with cert.pem and key.pem of DIRECTORY; its perspectives
                                 are the sockets there, named CODE.RIR.sock; KEY has to come as x-api-key
"""

import asyncio
import json
import os
import ssl
import sys

from aiohttp import web
from open_mpic_core import (
    CaaCheckRequest,
    CaaCheckResponse,
    CheckType,
    DcvCheckRequest,
    DcvCheckResponse,
    MpicCaaChecker,
    MpicCaaRequest,
    MpicCoordinator,
    MpicCoordinatorConfiguration,
    MpicDcvChecker,
    MpicDcvRequest,
    RemotePerspective,
)

LIMIT = 1 << 20


async def perspective(path):
    dcv = MpicDcvChecker(http_client_timeout=5)
    caa = MpicCaaChecker(["ca.example.net"])

    async def serve(reader, writer):
        kind, request = json.loads(await reader.readline())
        if kind == "caa":
            response = await caa.check_caa(CaaCheckRequest.model_validate(request))
        else:
            response = await dcv.check_dcv(DcvCheckRequest.model_validate(request))
        writer.write(response.model_dump_json().encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path, limit=LIMIT)
    async with server:
        await server.serve_forever()


async def coordinator(port, directory, key):
    perspectives = []
    for name in sorted(os.listdir(directory)):
        if name.endswith(".sock"):
            code, rir, _ = name.split(".")
            perspectives.append(RemotePerspective(code=code, rir=rir))

    async def call(perspective, check_type, request):
        path = f"{directory}/{perspective.code}.{perspective.rir.value}.sock"
        reader, writer = await asyncio.open_unix_connection(path, limit=LIMIT)
        writer.write(json.dumps([check_type.value, json.loads(request.model_dump_json())]).encode() + b"\n")
        await writer.drain()
        answer = await reader.read()
        writer.close()
        kind = CaaCheckResponse if check_type == CheckType.CAA else DcvCheckResponse
        return kind.model_validate_json(answer)

    configuration = MpicCoordinatorConfiguration(perspectives, len(perspectives), 1, "secret of the test")
    asked = MpicCoordinator(call, configuration)

    async def mpic(request):
        if request.headers.get("x-api-key") != key:
            return web.Response(status=403, text="wrong key")
        body = await request.json()
        kind = MpicCaaRequest if body["check_type"] == "caa" else MpicDcvRequest
        response = await asked.coordinate_mpic(kind.model_validate(body))
        return web.Response(text=response.model_dump_json(), content_type="application/json")

    application = web.Application()
    application.router.add_post("/v2/mpic", mpic)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{directory}/cert.pem", f"{directory}/key.pem")
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(port), ssl_context=context).start()
    await asyncio.Event().wait()


asyncio.run({"perspective": perspective, "coordinator": coordinator}[sys.argv[1]](*sys.argv[2:]))
