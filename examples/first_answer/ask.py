import meshserve

with meshserve.Client("127.0.0.1:8080") as client:
    answer = client.predict("iris", [[5.1, 3.5, 1.4, 0.2]])
    print(answer)
