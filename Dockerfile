# SpikeVRT on a CPU: the command, and the web page.
#   docker build -t spikevrt .
#   docker run --rm -v "$PWD:/data" spikevrt restore recordings/street --out out/street
#   docker run --rm -p 127.0.0.1:7860:7860 -v "$PWD:/data" spikevrt app --host 0.0.0.0 --folder /data/app
# On NVIDIA GPUs: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 -t spikevrt .
#                 docker run --gpus all ...
FROM python:3.11-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /spikevrt
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY src ./src
RUN PIP_CONSTRAINT=constraints.txt python -m pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
        '.[web,align,metrics,formats,tiff,exr,export]'

RUN useradd --create-home user
USER user
WORKDIR /data
ENTRYPOINT ["spikevrt"]
CMD ["--help"]
